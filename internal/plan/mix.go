package plan

import (
	"math"
	"math/big"
	"slices"
	"time"

	"github.com/assetmill/assetmill/jobs"
)

// batchRows is how many requests Vertex takes in one batch.
const batchRows = 200_000

// Mix is one way to do the jobs.
type Mix struct {
	Name   string  `json:"name"`
	Meets  bool    `json:"meets_deadline"`
	Shares []Share `json:"lanes"`
	// Seconds is from the beginning until the last job is done. Of batches it is the longest that Vertex may take; most end in hours.
	Seconds int64 `json:"seconds"`
	// InFlight is the calls in flight while all lanes are busy, and Workers how many they need.
	InFlight int `json:"calls_in_flight"`
	Workers  int `json:"workers"`
	// CostUSD is what lineage will put down. PrepaidUSD is the part of it that provisioned throughput has paid already, ToPayUSD the rest. RetryUSD is what
	// calls that are made again may cost at most, and WorkersUSD the workers' time, both on top.
	CostUSD    string `json:"cost_usd"`
	PrepaidUSD string `json:"prepaid_usd"`
	ToPayUSD   string `json:"to_pay_usd"`
	RetryUSD   string `json:"retries_at_most_usd"`
	WorkersUSD string `json:"workers_usd"`

	cost, prepaid, retry, workers jobs.USD
}

// Share is what goes by one lane.
type Share struct {
	Lane  string `json:"lane"`
	Model string `json:"model"`
	Tier  string `json:"tier"`
	Jobs  int64  `json:"jobs"`
	// PerMinute is the rate that is used. Ceiling says that it is less than what the lane gives, because more would take jobs from cheaper lanes: set
	// it as max_per_minute, divided by the workers.
	PerMinute float64 `json:"images_per_minute"`
	Source    Source  `json:"rate_source"`
	Ceiling   bool    `json:"ceiling,omitempty"`
	// CallSeconds is the mean length of a call.
	CallSeconds float64 `json:"call_seconds"`
	InFlight    float64 `json:"calls_in_flight"`
	Seconds     int64   `json:"seconds"` // that the lane is busy
	Batches     int64   `json:"batches,omitempty"`
	CostUSD     string  `json:"cost_usd"`

	lane   *Lane // nil for batch
	cost   jobs.USD
	work   time.Duration // length of all its calls together, without those that are made again
	window time.Duration // in which it may begin calls
}

// mixes returns the ways to do it, the one to take first.
func (r *Request) mixes(p *Plan) (all []Mix) {
	add := func(m *Mix) {
		if m != nil && !slices.ContainsFunc(all, func(o Mix) bool { return sameShares(o.Shares, m.Shares) }) {
			all = append(all, *m)
		}
	}
	quick := r.quickestMix(p)
	if p.Meets {
		add(r.cheapestMix("cheapest", r.everything(true)))
	}
	add(quick)
	for _, tier := range r.tiers() {
		w := r.everything(true)
		w.batch = tier == jobs.TierBatch
		w.lane = func(l *Lane) bool { return l.Tier == tier }
		add(r.cheapestMix("only "+tier, w))
	}
	return all
}

// tiers are those that there is more than one of.
func (r *Request) tiers() (all []string) {
	for _, list := range [][]Lane{r.Lanes, r.Batch} {
		for i := range list {
			l := &list[i]
			usable := l.PerMinute > 0 || l.Tier == jobs.TierBatch
			if serves := slices.ContainsFunc(r.Demands, func(d Demand) bool { return l.Model == d.Model.ID }); usable && serves && !slices.Contains(all, l.Tier) {
				all = append(all, l.Tier)
			}
		}
	}
	return all
}

func sameShares(a, b []Share) bool {
	return slices.EqualFunc(a, b, func(a, b Share) bool { return a.Lane == b.Lane && a.Jobs == b.Jobs })
}

// cheapestMix is the cheapest that meets the deadlines, and among those the quickest. Where the deadlines can't be met that way, it is the cheapest
// without them. It is nil when the ways don't serve all jobs.
func (r *Request) cheapestMix(name string, w ways) *Mix {
	s := r.solve(w)
	meets := s.lateJobs() == 0
	if !meets {
		w.deadlines = false
		if s = r.solve(w); s.lateJobs() > 0 {
			return nil
		}
	}
	best, w := r.quickest(w, func(o *solution) bool { return o.lateJobs() == 0 && o.cost == s.cost })
	return r.mix(name, best, w, meets)
}

// quickestMix uses all lanes at once. Only jobs that ask for batch, or that no lane serves, go there.
func (r *Request) quickestMix(p *Plan) *Mix {
	w := r.everything(false)
	w.batch = false
	left := r.solve(w).lateJobs()
	if left > p.UnservedJobs {
		w.batch = true
		left = p.UnservedJobs
	}
	best, w := r.quickest(w, func(o *solution) bool { return o.lateJobs() == left })
	return r.mix("quickest", best, w, p.Meets)
}

// mix works out what a solution means.
func (r *Request) mix(name string, s *solution, w ways, meets bool) *Mix {
	m := &Mix{Name: name, Meets: meets, Shares: []Share{}}
	bills := r.bills(s)
	tail := time.Duration(0)
	for i := range r.Lanes {
		l := &r.Lanes[i]
		sh := Share{Lane: l.Name, Model: l.Model, Tier: l.Tier, Source: l.Source, lane: l}
		for g := range r.Demands {
			if n := s.online[g][i]; n > 0 {
				sh.Jobs += n
				sh.cost += bills[g][i]
				sh.work += time.Duration(n) * l.callTime(r.Demands[g].Size)
				tail = max(tail, r.tail(l, &r.Demands[g]))
				sh.Ceiling = sh.Ceiling || r.cheaperThan(l, &r.Demands[g])
				sh.window = max(sh.window, r.window(&r.Demands[g], l, w))
			}
		}
		if sh.Jobs == 0 {
			continue
		}
		r.pace(&sh)
		if l.prepaid() {
			m.prepaid += sh.cost
		}
		m.Seconds = max(m.Seconds, sh.Seconds)
		m.Shares = append(m.Shares, sh)
	}
	if m.Seconds > 0 {
		m.Seconds += seconds(r.StartUp + settling + tail)
	}
	r.fleet(m)
	r.addBatches(m, s, bills)
	r.sum(m)
	return m
}

// cheaperThan reports whether another lane that serves the jobs costs less: whether what goes by this one would rather go by that.
func (r *Request) cheaperThan(l *Lane, d *Demand) bool {
	return slices.ContainsFunc(r.Lanes, func(o Lane) bool { return o.PerMinute > 0 && o.serves(d) && unitCost(&o, d) < unitCost(l, d) })
}

// pace works out at which rate a share's lane runs, and for how long.
func (r *Request) pace(sh *Share) {
	calls := float64(sh.Jobs) * (1 + r.Retries)
	sh.PerMinute = sh.lane.PerMinute
	// Windows are whole seconds and capacities whole jobs: less than a hundredth, or two seconds, below what the lane gives is rounding.
	idle := sh.window - time.Duration(calls/sh.PerMinute*float64(time.Minute))
	if sh.Ceiling && idle > sh.window/100 && idle > 2*time.Second {
		sh.PerMinute = calls / sh.window.Minutes()
	} else {
		sh.Ceiling = false
	}
	sh.Seconds = int64(math.Ceil(calls / sh.PerMinute * 60))
	sh.CallSeconds = sh.work.Seconds() / float64(sh.Jobs)
	// Few jobs are all in flight at once.
	sh.InFlight = min(sh.PerMinute/60*sh.CallSeconds, float64(sh.Jobs))
}

// fleet works out how many workers the online lanes need.
func (r *Request) fleet(m *Mix) {
	inFlight := 0.0
	for _, sh := range m.Shares {
		inFlight += sh.InFlight
		if bound := sh.lane.WorkerPerMinute; bound > 0 {
			m.Workers = max(m.Workers, int(math.Ceil(sh.PerMinute/bound)))
		}
		if bound := sh.lane.WorkerInFlight; bound > 0 {
			m.Workers = max(m.Workers, int(math.Ceil(sh.InFlight/float64(bound))))
		}
	}
	m.InFlight = int(math.Ceil(inFlight))
	m.Workers = max(m.Workers, int(math.Ceil(inFlight/(float64(r.Concurrency)*TargetUse/100))))
}

func (r *Request) addBatches(m *Mix, s *solution, bills [][]jobs.USD) {
	left := slices.Clone(s.batch)
	for _, l := range r.Batch {
		sh := Share{Lane: l.Name, Model: l.Model, Tier: l.Tier, Source: Given, Seconds: seconds(jobs.BatchTime)}
		regions := map[string]int64{}
		for g := range r.Demands {
			// The first lane of a model takes them all.
			if d := &r.Demands[g]; left[g] > 0 && d.Model.ID == l.Model && (d.Region == jobs.GlobalRegion || d.Region == l.Region) {
				sh.Jobs += left[g]
				sh.cost += bills[g][len(r.Lanes)]
				regions[d.Region] += left[g]
				left[g] = 0
			}
		}
		if sh.Jobs == 0 {
			continue
		}
		for _, n := range regions {
			sh.Batches += (n + batchRows - 1) / batchRows
		}
		m.Seconds = max(m.Seconds, sh.Seconds)
		m.Workers = max(m.Workers, 1) // which gathers, watches and collects
		m.Shares = append(m.Shares, sh)
	}
}

// sum adds up the money.
func (r *Request) sum(m *Mix) {
	for i := range m.Shares {
		m.cost += m.Shares[i].cost
		m.Shares[i].CostUSD = m.Shares[i].cost.String()
	}
	m.retry = scaled(m.cost, r.Retries)
	online := time.Duration(0)
	for _, sh := range m.Shares {
		if sh.lane != nil {
			online = max(online, time.Duration(sh.Seconds)*time.Second)
		}
	}
	m.workers = scaled(r.WorkerPrice, float64(m.Workers)*online.Hours())
	m.CostUSD, m.PrepaidUSD, m.ToPayUSD = m.cost.String(), m.prepaid.String(), m.toPay().String()
	m.RetryUSD, m.WorkersUSD = m.retry.String(), m.workers.String()
}

// toPay is what is not paid already.
func (m *Mix) toPay() jobs.USD { return m.cost - m.prepaid }

// scaled is an estimate, rounded up to a nano-dollar.
func scaled(amount jobs.USD, by float64) jobs.USD { return jobs.USD(math.Ceil(float64(amount) * by)) }

// bills shares out what each demand costs among its ways, the last of which is batch. Shares of one price add up to it exactly: each is the difference of
// two parts of the whole, rounded alike.
func (r *Request) bills(s *solution) [][]jobs.USD {
	all := make([][]jobs.USD, len(r.Demands))
	for g := range r.Demands {
		d := &r.Demands[g]
		all[g] = make([]jobs.USD, len(r.Lanes)+1)
		done := map[jobs.USD]int64{} // jobs so far, by what the whole demand costs that way
		share := func(whole jobs.USD, n int64) jobs.USD {
			before := part(whole, done[whole], d.Jobs)
			done[whole] += n
			return part(whole, done[whole], d.Jobs) - before
		}
		for i := range r.Lanes {
			if n := s.online[g][i]; n > 0 {
				all[g][i] = share(r.Lanes[i].bill(d), n)
			}
		}
		all[g][len(r.Lanes)] = share(d.Cost[jobs.TierBatch], s.batch[g])
	}
	return all
}

// part is n of total parts of an amount, rounded down.
func part(amount jobs.USD, n, total int64) jobs.USD {
	product := new(big.Int).Mul(big.NewInt(int64(amount)), big.NewInt(n))
	return jobs.USD(product.Quo(product, big.NewInt(total)).Int64())
}
