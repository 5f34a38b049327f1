package plan

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/assetmill/assetmill/jobs"
)

// maxPercent is where the search for a rate that would do ends: at a thousand times the present one, time is what lacks.
const maxPercent = 100_000

// advise says what would do if the deadline can't be met, and otherwise what to set, and what would be cheaper.
func (r *Request) advise(p *Plan) (all []Advice) {
	if p.UnservedJobs > 0 {
		all = append(all, r.unserved()...)
	}
	if len(p.Mixes) == 0 {
		return all
	}
	if p.LateJobs > 0 {
		return append(all, r.whatWouldDo(p)...)
	}
	return append(append(all, r.settings(&p.Mixes[0])...), r.savings(&p.Mixes[0])...)
}

// unserved says for which jobs there is no lane.
func (r *Request) unserved() (all []Advice) {
	s := r.solve(r.everything(false))
	for g, n := range s.late {
		if n == 0 {
			continue
		}
		d := &r.Demands[g]
		what := fmt.Sprintf("%s of %s, size %s", count(n, "job"), d.Model.ID, d.Size)
		if d.Region != jobs.GlobalRegion {
			what += ", data region " + d.Region
		}
		text := what + ": no lane with a known rate serves them; add one to ASSETMILL_LANES, or say its rate with --rate"
		if d.Mode == jobs.Batch {
			text = fmt.Sprintf("%s: they ask for batch, which does not do for them: sizes are %s only, the deadline must be %s away, and there must be a batch lane",
				what, strings.Join(d.Model.BatchSizes, ", "), hours(jobs.BatchTime))
		}
		all = append(all, Advice{Kind: "lane", Text: text})
	}
	return all
}

// whatWouldDo says which rate, how many hours or which further lanes would meet the deadline.
func (r *Request) whatWouldDo(p *Plan) (all []Advice) {
	late := func(r *Request, percent int) int64 {
		w := r.everything(true)
		w.percent = percent
		return r.solve(w).lateJobs()
	}
	projects := 0
	if late(r, maxPercent) == p.UnservedJobs {
		low, high := 100, maxPercent
		for high-low > 1 {
			if middle := (low + high) / 2; late(r, middle) == p.UnservedJobs {
				high = middle
			} else {
				low = middle
			}
		}
		projects = (high + 99) / 100
		all = append(all, Advice{Kind: "rate", RatePercent: high, Text: fmt.Sprintf("rates %.2f times as high: %s", float64(high)/100, r.ratesAt(high))})
	} else {
		text := fmt.Sprintf("no rate would do: the deadline leaves no time beside the start-up of %s and the last calls", short(r.StartUp))
		all = append(all, Advice{Kind: "time", Text: text})
	}
	for _, m := range p.Mixes {
		if m.Name == "quickest" {
			whole := time.Duration(float64(m.Seconds)/(1-r.Reserve)) * time.Second
			text := fmt.Sprintf("%s instead, for all jobs by these lanes, %.0f %% reserve included", short(whole), 100*r.Reserve)
			all = append(all, Advice{Kind: "time", Seconds: seconds(whole), CostUSD: m.CostUSD, Text: text})
		}
	}
	for _, more := range r.furtherLanes(projects) {
		with := *r
		with.Lanes, with.Batch = slices.Concat(r.Lanes, more.online), slices.Concat(r.Batch, more.batch)
		if s := with.solve(with.everything(true)); s.lateJobs() == p.UnservedJobs {
			m := with.cheapestMix("", with.everything(true))
			if m != nil {
				all = append(all, Advice{Kind: "lane", CostUSD: m.CostUSD, Text: fmt.Sprintf("%s, for $%s", more.what, m.toPay().Cents())})
			}
		}
	}
	return all
}

func (r *Request) ratesAt(percent int) string {
	var texts []string
	for i := range r.Lanes {
		if l := &r.Lanes[i]; l.PerMinute > 0 && slices.ContainsFunc(r.Demands, func(d Demand) bool { return l.serves(&d) }) {
			texts = append(texts, fmt.Sprintf("%s %.0f a minute", l.Name, math.Ceil(l.PerMinute*float64(percent)/100)))
		}
	}
	return strings.Join(texts, ", ")
}

// further are lanes that the catalogue offers and that there are not.
type further struct {
	what          string
	online, batch []Lane
}

// maxProjects is how many projects are suggested at most. Beyond it, quota has to be asked for.
const maxProjects = 10

// furtherLanes returns what could be added: a tier of the models that none of the lanes has, and the same lanes in further projects.
func (r *Request) furtherLanes(projects int) (all []further) {
	for _, tier := range []string{tierFlex, jobs.TierStandard, jobs.TierBatch} {
		if f := r.furtherTier(tier); f.what != "" {
			all = append(all, f)
		}
	}
	if projects > maxProjects {
		return all
	}
	more := further{what: fmt.Sprintf("the same lanes in %d projects, if each has that quota", projects)}
	for n := 2; n <= projects; n++ {
		for _, l := range r.Lanes {
			l.Name += fmt.Sprintf(" in project %d", n)
			more.online = append(more.online, l)
		}
	}
	return append(all, more)
}

func (r *Request) furtherTier(tier string) (f further) {
	var rates []string
	for _, d := range r.Demands {
		has := func(l Lane) bool {
			return l.Model == d.Model.ID && l.Tier == tier && (l.PerMinute > 0 || tier == jobs.TierBatch)
		}
		if !d.Model.HasTier(tier) || d.Region != jobs.GlobalRegion || slices.ContainsFunc(slices.Concat(r.Lanes, r.Batch, f.online, f.batch), has) {
			continue
		}
		l := Lane{Name: d.Model.ID + "/" + jobs.GlobalRegion + "/" + tier, Model: d.Model.ID, Location: jobs.GlobalRegion, Tier: tier, Source: Assumed}
		if tier == jobs.TierBatch {
			f.batch = append(f.batch, l)
			rates = append(rates, l.Name)
			continue
		}
		l.PerMinute = AssumedRate
		for _, o := range r.Lanes {
			if o.Model == d.Model.ID {
				l.PerMinute = max(l.PerMinute, o.PerMinute)
			}
		}
		if tier == tierFlex {
			l.PerMinute = min(l.PerMinute, flexPerMinute)
		}
		f.online = append(f.online, l)
		rates = append(rates, fmt.Sprintf("%s, if it gave %.0f a minute", l.Name, l.PerMinute))
	}
	if len(rates) > 0 {
		f.what = "with " + strings.Join(rates, " and ") + ", as well"
	}
	return f
}

// settings says what makes workers go by the mix.
func (r *Request) settings(m *Mix) (all []Advice) {
	setting := func(format string, args ...any) {
		all = append(all, Advice{Kind: "setting", Text: fmt.Sprintf(format, args...)})
	}
	used := map[string]bool{}
	dearer, batch := false, int64(0)
	for _, sh := range m.Shares {
		used[sh.Lane] = true
		if sh.lane == nil {
			batch += sh.Jobs
			continue
		}
		dearer = dearer || slices.ContainsFunc(r.Demands, func(d Demand) bool { return sh.lane.serves(&d) && r.cheaperThan(sh.lane, &d) })
		if sh.Ceiling {
			setting("%s: max_per_minute: %.0f, for each of %s, so that it takes no more from cheaper lanes than it must",
				sh.Lane, math.Ceil(sh.PerMinute/float64(m.Workers)), count(m.Workers, "worker"))
		}
	}
	if dearer {
		setting("spill_after: 0s, so that jobs use the dearer lanes while the cheaper ones are full")
	}
	unused := slices.ContainsFunc(r.Lanes, func(l Lane) bool {
		return !used[l.Name] && l.PerMinute > 0 && slices.ContainsFunc(r.Demands, func(d Demand) bool { return l.serves(&d) && r.cheaperThan(&l, &d) })
	})
	if unused && !dearer && batch < sumJobs(r.Demands) {
		setting("spill_after: 10m, so that jobs wait for the cheaper lanes; dearer ones are not needed")
	}
	if batch > 0 && slices.ContainsFunc(r.Demands, func(d Demand) bool { return d.Mode == jobs.Auto }) {
		setting("submit with --mode auto or --mode batch: %s go by batch", count(batch, "job"))
	}
	all = append(all, r.fewerWorkers(m)...)
	if m.Workers > 0 {
		setting("room for %s of --concurrency %d: maxReplicaCount of at least %d", count(m.Workers, "worker"), r.Concurrency, m.Workers)
	}
	return all
}

// enoughForAPacer is how many calls a minute a worker needs of a lane, so that its pacer finds the rate at the cost of few throttled
// calls: docs/pacing.md.
const enoughForAPacer = 150

// fewerWorkers says when the lane with the most jobs is shared out among so many workers that each gets too little of it to learn from.
func (r *Request) fewerWorkers(m *Mix) []Advice {
	var most *Share
	for i := range m.Shares {
		if sh := &m.Shares[i]; sh.lane != nil && (most == nil || sh.Jobs > most.Jobs) {
			most = sh
		}
	}
	if most == nil || m.Workers < 2 || most.PerMinute >= float64(enoughForAPacer*m.Workers) {
		return nil
	}
	workers := max(1, int(most.PerMinute/enoughForAPacer))
	concurrency := math.Ceil(float64(m.InFlight) * 100 / TargetUse / float64(workers))
	return []Advice{{Kind: "setting", Text: fmt.Sprintf("fewer and larger workers, such as %s of --concurrency %.0f: %d leave each %.0f calls a minute of %s, and below %d more are throttled",
		count(workers, "worker"), concurrency, m.Workers, most.PerMinute/float64(m.Workers), most.Lane, enoughForAPacer)}}
}

func sumJobs(all []Demand) (n int64) {
	for i := range all {
		n += all[i].Jobs
	}
	return n
}

// savings says what would be cheaper and still in time.
func (r *Request) savings(m *Mix) (all []Advice) {
	cheaper := func(with *Request, kind, what string) {
		if o := with.cheapestMix("", with.everything(true)); o != nil && o.Meets && o.toPay() < m.toPay() {
			text := fmt.Sprintf("%s: $%s instead of $%s, done in %s", what, o.toPay().Cents(), m.toPay().Cents(), o.takes())
			all = append(all, Advice{Kind: kind, CostUSD: o.CostUSD, Text: text})
		}
	}
	for _, tier := range []string{tierFlex, jobs.TierBatch} {
		if more := r.furtherTier(tier); more.what != "" {
			with := *r
			with.Lanes, with.Batch = slices.Concat(r.Lanes, more.online), slices.Concat(r.Batch, more.batch)
			cheaper(&with, "lane", more.what)
		}
	}
	free := *r
	free.Demands = slices.Clone(r.Demands)
	for i := range free.Demands {
		if free.Demands[i].Mode == jobs.Online {
			free.Demands[i].Mode = jobs.Auto
		}
	}
	if !slices.Equal(modes(free.Demands), modes(r.Demands)) {
		cheaper(&free, "mode", "with mode auto instead of online")
	}
	return all
}

func modes(all []Demand) (list []jobs.Mode) {
	for _, d := range all {
		list = append(list, d.Mode)
	}
	return list
}

// assumptions are what the plan takes for granted and nobody said.
func (r *Request) assumptions() []string {
	var all []string
	var assumed, unknown []string
	for i := range r.Lanes {
		l := &r.Lanes[i]
		if !slices.ContainsFunc(r.Demands, func(d Demand) bool { return l.serves(&d) }) {
			continue
		}
		switch l.Source {
		case Assumed:
			assumed = append(assumed, l.Name)
		case Unknown:
			unknown = append(unknown, l.Name)
		}
	}
	if len(assumed) > 0 {
		all = append(all, fmt.Sprintf("nothing is known of the rate of %s: %d images a minute are assumed; see --rate and --metrics", some(assumed), AssumedRate))
	}
	if len(unknown) > 0 {
		all = append(all, fmt.Sprintf("not counted on, since jobs prefer other locations: %s", some(unknown)))
	}
	if slices.ContainsFunc(r.Lanes, func(l Lane) bool { return l.PerMinute > 0 && l.CallTime == 0 }) {
		all = append(all, "calls take as long as others report (20 s for 1K, twice that in flex); see --call-time and --metrics")
	}
	deadlines := map[time.Duration]bool{}
	for _, d := range r.Demands {
		deadlines[d.Within] = true
	}
	if len(deadlines) > 1 {
		all = append(all, "jobs with near deadlines are submitted before the others: the queue serves jobs as they come")
	}
	return all
}

// maxNamed bounds how many lanes a sentence names.
const maxNamed = 3

func some(names []string) string {
	if more := len(names) - maxNamed; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:maxNamed], ", "), more)
	}
	return strings.Join(names, ", ")
}
