package plan

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
)

func TestLittlesLaw(t *testing.T) {
	t.Parallel()
	p := made(t, request(demand(t, 60_000, "1K", 0, jobs.Online), online("standard", 600)))
	m := p.Mixes[0]
	// 10 a second for 30 s each are 300, which 3.53 workers of 100 calls take at 85 %.
	if m.InFlight != 300 || m.Workers != 4 {
		t.Errorf("%d calls in flight, %d workers", m.InFlight, m.Workers)
	}
	// 100 minutes, one of learning, and the last calls.
	if want := int64((100*time.Minute + settling + time.Minute) / time.Second); m.Seconds != want {
		t.Errorf("%d s, want %d", m.Seconds, want)
	}
	if want := jobs.USD(60_000 * 134_500_000); m.cost != want || m.CostUSD != "8070.000000000" {
		t.Errorf("it costs %s, want %s", m.CostUSD, want)
	}
	if !p.Meets || len(p.Mixes) != 1 {
		t.Errorf("plan %+v", p)
	}
}

func TestWorkersKeepTheirLanesBounds(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		change func(*Lane)
		want   int
	}{
		"none":          {func(*Lane) {}, 4},
		"calls":         {func(l *Lane) { l.WorkerInFlight = 50 }, 6},
		"rate":          {func(l *Lane) { l.WorkerPerMinute = 80 }, 8},
		"wide":          {func(l *Lane) { l.WorkerPerMinute, l.WorkerInFlight = 1000, 1000 }, 4},
		"longer calls":  {func(l *Lane) { l.CallTime = time.Minute }, 8},
		"unknown calls": {func(l *Lane) { l.CallTime = 0 }, 3}, // 20 s for 1K
	} {
		l := online("standard", 600)
		tc.change(&l)
		if got := made(t, request(demand(t, 60_000, "1K", 0, jobs.Online), l)).Mixes[0].Workers; got != tc.want {
			t.Errorf("%s: %d workers, want %d", name, got, tc.want)
		}
	}
}

func TestTheCheapestMixThatIsInTime(t *testing.T) {
	t.Parallel()
	provisioned, flex, standard := online("provisioned", 100), online("flex", 600), online("standard", 1200)
	for name, tc := range map[string]struct {
		jobs   int64
		size   string
		within time.Duration
		mode   jobs.Mode
		lanes  []Lane
		want   map[string]int64
		meets  bool
	}{
		"batch costs as much as flex, which is quicker": {100_000, "1K", 200 * time.Hour, jobs.Auto, []Lane{flex, standard}, map[string]int64{"flex": 100_000}, true},
		"batch where there is no flex":                  {100_000, "1K", 200 * time.Hour, jobs.Auto, []Lane{standard}, map[string]int64{"batch": 100_000}, true},
		"no batch for few":                              {99, "1K", 0, jobs.Auto, []Lane{standard}, map[string]int64{"standard": 99}, true},
		"batch for enough":                              {100, "1K", 0, jobs.Auto, []Lane{standard}, map[string]int64{"batch": 100}, true},
		"no batch for 2K":                               {100_000, "2K", 200 * time.Hour, jobs.Auto, []Lane{standard}, map[string]int64{"standard": 100_000}, true},
		"no batch in less than 102 h":                   {100_000, "1K", 101 * time.Hour, jobs.Auto, []Lane{standard}, map[string]int64{"standard": 100_000}, true},
		"batch in just 102 h":                           {100_000, "1K", 102 * time.Hour, jobs.Auto, []Lane{standard}, map[string]int64{"batch": 100_000}, true},
		"no batch for jobs that ask for online":         {100_000, "1K", 0, jobs.Online, []Lane{standard}, map[string]int64{"standard": 100_000}, true},
		"batch for those that ask for it":               {100, "1K", 0, jobs.Batch, []Lane{flex, standard}, map[string]int64{"batch": 100}, true},
		"flex as long as it is in time":                 {60_000, "1K", 3 * time.Hour, jobs.Online, []Lane{flex, standard}, map[string]int64{"flex": 60_000}, true},
		// Flex may be used until half an hour before, 1 min for learning and 1 min for the last calls: 2:28 h; standard 2:58 h.
		"the rest by standard":           {100_000, "1K", 3 * time.Hour, jobs.Online, []Lane{flex, standard}, map[string]int64{"flex": 88_800, "standard": 11_200}, true},
		"no flex within half an hour":    {1000, "1K", 30 * time.Minute, jobs.Online, []Lane{flex, standard}, map[string]int64{"standard": 1000}, true},
		"paid throughput first":          {10_000, "1K", 2 * time.Hour, jobs.Online, []Lane{provisioned, flex, standard}, map[string]int64{"provisioned": 10_000}, true},
		"paid throughput, then flex":     {30_000, "1K", 2 * time.Hour, jobs.Online, []Lane{provisioned, flex, standard}, map[string]int64{"provisioned": 11_800, "flex": 18_200}, true},
		"too much: everything at once":   {1_000_000, "1K", 3 * time.Hour, jobs.Online, []Lane{flex, standard}, map[string]int64{"flex": 333_333, "standard": 666_667}, false},
		"too late for anything":          {10, "1K", time.Minute, jobs.Online, []Lane{standard}, map[string]int64{"standard": 10}, false},
		"a lane without a rate is none":  {10, "1K", 0, jobs.Online, []Lane{online("flex", 0), standard}, map[string]int64{"standard": 10}, true},
		"a size that the lane has not":   {10, "4K", 0, jobs.Online, []Lane{func() Lane { l := flex; l.Sizes = []string{"1K", "2K"}; return l }(), standard}, map[string]int64{"standard": 10}, true},
		"a price of its own is compared": {10, "1K", 0, jobs.Online, []Lane{flex, func() Lane { l := standard; p := jobs.USD(1); l.ImagePrice = &p; return l }()}, map[string]int64{"standard": 10}, true},
	} {
		r := request(demand(t, tc.jobs, tc.size, tc.within, tc.mode), tc.lanes...)
		r.Batch = []Lane{batchLane}
		p := made(t, r)
		got := by(&p.Mixes[0])
		for lane, n := range tc.want {
			// Capacities are whole jobs in whole seconds.
			if off := got[lane] - n; off > 40 || -off > 40 {
				t.Errorf("%s: %v, want %v", name, got, tc.want)
				break
			}
		}
		if len(got) != len(tc.want) || p.Meets != tc.meets {
			t.Errorf("%s: %v, in time: %v; want %v, %v", name, got, p.Meets, tc.want, tc.meets)
		}
	}
}

func TestWhatWouldDo(t *testing.T) {
	t.Parallel()
	r := request(demand(t, 200_000, "1K", 2*time.Hour, jobs.Online), online("standard", 600))
	p := made(t, r)
	if p.Meets || p.LateJobs == 0 || p.Mixes[0].Name != "quickest" || p.Mixes[0].Meets {
		t.Fatalf("plan %+v", p)
	}
	kinds := map[string]Advice{}
	for _, a := range p.Advice {
		kinds[a.Kind] = a
	}
	with := func(change func(*Request)) bool {
		r := r
		r.Lanes, r.Demands = append([]Lane(nil), r.Lanes...), append([]Demand(nil), r.Demands...)
		change(&r)
		return made(t, r).Meets
	}
	percent := kinds["rate"].RatePercent
	rated := func(percent int) bool {
		return with(func(r *Request) { r.Lanes[0].PerMinute = 600 * float64(percent) / 100 })
	}
	if percent <= 100 || !rated(percent) || rated(percent-1) {
		t.Errorf("%d %% of the rate is advised: %v; with a percent less: %v", percent, rated(percent), rated(percent-1))
	}
	seconds := kinds["time"].Seconds
	timed := func(seconds int64) bool {
		return with(func(r *Request) { r.Demands[0].Within = time.Duration(seconds) * time.Second })
	}
	if !timed(seconds+2) || timed(seconds-60) {
		t.Errorf("%d s are advised: %v; a minute less: %v", seconds, timed(seconds+2), timed(seconds-60))
	}
	if !strings.Contains(kinds["lane"].Text, "3 projects") {
		t.Errorf("advice about lanes: %q", kinds["lane"].Text)
	}
	r.Demands = demand(t, 200_000, "1K", time.Minute, jobs.Online)
	if a := made(t, r).Advice[0]; a.Kind != "time" || !strings.Contains(a.Text, "no rate would do") {
		t.Errorf("advice for a deadline in a minute: %+v", a)
	}
}

func TestFurtherLanesAreAdvised(t *testing.T) {
	t.Parallel()
	has := func(p *Plan, kind, text string) bool {
		for _, a := range p.Advice {
			if a.Kind == kind && strings.Contains(a.Text, text) {
				return true
			}
		}
		return false
	}
	// 1,100 a minute would do: flex would add 600, and batch has the time of no such deadline.
	late := made(t, request(demand(t, 190_000, "1K", 3*time.Hour, jobs.Online), online("standard", 800)))
	if !has(late, "lane", "with "+pro+"/global/flex, if it gave 800 a minute") || has(late, "lane", "batch") {
		t.Errorf("advice %+v", late.Advice)
	}
	cheap := made(t, request(demand(t, 100_000, "1K", 200*time.Hour, jobs.Online), online("standard", 800)))
	if !has(cheap, "lane", "flex, if it gave 800 a minute, as well: $6725.00 instead of $13450.00") || has(cheap, "lane", "/batch") {
		t.Errorf("advice %+v", cheap.Advice)
	}
	r := request(demand(t, 100_000, "1K", 200*time.Hour, jobs.Online), online("standard", 800))
	r.Batch = []Lane{batchLane}
	if p := made(t, r); !has(p, "mode", "with mode auto instead of online: $6725.00 instead of $13450.00, done in up to 102 h") {
		t.Errorf("advice %+v", p.Advice)
	}
}

func TestSettingsThatMakeTheMixHappen(t *testing.T) {
	t.Parallel()
	texts := func(p *Plan) string {
		all := ""
		for _, a := range p.Advice {
			if a.Kind == "setting" {
				all += a.Text + "\n"
			}
		}
		return all
	}
	both := made(t, request(demand(t, 100_000, "1K", 3*time.Hour, jobs.Online), online("flex", 600), online("standard", 1200)))
	if got := texts(both); !strings.Contains(got, "standard: max_per_minute: 19, for each of 4 workers") || !strings.Contains(got, "spill_after: 0s") ||
		!strings.Contains(got, "room for 4 workers of --concurrency 100: maxReplicaCount of at least 4") || strings.Contains(got, "flex: max_per_minute") {
		t.Errorf("settings:\n%s", got)
	}
	if sh := both.Mixes[0].Shares[1]; !sh.Ceiling || math.Abs(sh.PerMinute-11_200/148.0) > 0.5 {
		t.Errorf("standard runs at %v a minute, ceiling: %v", sh.PerMinute, sh.Ceiling)
	}
	one := made(t, request(demand(t, 60_000, "1K", 3*time.Hour, jobs.Online), online("flex", 600), online("standard", 1200)))
	if got := texts(one); !strings.Contains(got, "spill_after: 10m") || strings.Contains(got, "max_per_minute") {
		t.Errorf("settings:\n%s", got)
	}
	alone := made(t, request(demand(t, 60_000, "1K", 3*time.Hour, jobs.Online), online("standard", 1200)))
	if got := texts(alone); strings.Contains(got, "spill_after") {
		t.Errorf("settings:\n%s", got)
	}
}

func TestJobsThatNoLaneServes(t *testing.T) {
	t.Parallel()
	for name, r := range map[string]Request{
		"no lanes":                request(demand(t, 10, "1K", 0, jobs.Online)),
		"another model":           request(demand(t, 10, "1K", 0, jobs.Online), Lane{Name: "other", Model: "other", Tier: "standard", PerMinute: 10}),
		"batch that does not fit": {Demands: demand(t, 10, "1K", time.Hour, jobs.Batch), Lanes: []Lane{online("standard", 10)}, Batch: []Lane{batchLane}, Concurrency: 1},
	} {
		p := made(t, r)
		if p.UnservedJobs != 10 || p.Meets || p.LateJobs != 0 || len(p.Advice) == 0 || p.Advice[0].Kind != "lane" {
			t.Errorf("%s: %+v", name, p)
		}
	}
}

func TestQuestionsThatMakeNoSense(t *testing.T) {
	t.Parallel()
	for want, spoil := range map[string]func(*Request){
		"0 jobs":      func(r *Request) { r.Demands = nil },
		"no jobs":     func(r *Request) { r.Demands[0].Jobs = 0 },
		"concurrency": func(r *Request) { r.Concurrency = 0 },
		"reserve":     func(r *Request) { r.Reserve = 1 },
		"retries":     func(r *Request) { r.Retries = math.NaN() },
		"start-up":    func(r *Request) { r.StartUp = -1 },
		"allowed":     func(r *Request) { r.Demands[0].Jobs = MaxJobs + 1 },
	} {
		r := request(demand(t, 10, "1K", 0, jobs.Online), online("standard", 10))
		spoil(&r)
		if _, err := Make(r); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// random is a question with several demands and lanes.
func random(t *testing.T, seed uint64) Request {
	rng := rand.New(rand.NewPCG(seed, 0))
	c := NewCounter(jobs.DefaultCatalogue(), day)
	for range 1 + rng.IntN(5) {
		within := time.Duration(rng.IntN(2)*(1+rng.IntN(200))) * time.Hour
		for _, d := range demand(t, 1, []string{"1K", "2K", "4K"}[rng.IntN(3)], within, jobs.Online) {
			j := parse(t, &schemas.Job{Size: d.Size})
			if within > 0 {
				j.Deadline = day.Add(within)
			}
			c.Add(j, []jobs.Mode{jobs.Online, jobs.Auto}[rng.IntN(2)], 1+rng.Int64N(100_000))
		}
	}
	r := Request{
		Demands: c.Demands(), Concurrency: 1 + rng.IntN(400), StartUp: time.Duration(rng.IntN(600)) * time.Second, Reserve: rng.Float64() / 2,
		Retries: rng.Float64() / 10, WorkerPrice: DefaultWorkerPrice,
	}
	for _, tier := range []string{"provisioned", "flex", "standard"} {
		if rng.IntN(3) > 0 {
			r.Lanes = append(r.Lanes, online(tier, float64(1+rng.IntN(2000))))
		}
	}
	if rng.IntN(2) > 0 {
		r.Batch = []Lane{batchLane}
	}
	return r
}

// What must hold for every plan.
func TestPlansAddUp(t *testing.T) {
	t.Parallel()
	for seed := range uint64(30) {
		r := random(t, seed)
		p := made(t, r)
		again := made(t, random(t, seed))
		if diff := cmp.Diff(p, again, cmp.AllowUnexported(Mix{}, Share{})); diff != "" {
			t.Fatalf("seed %d: the same question has two answers: %s", seed, diff)
		}
		for i := range p.Mixes {
			m := &p.Mixes[i]
			total, cost := int64(0), jobs.USD(0)
			for _, sh := range m.Shares {
				total += sh.Jobs
				cost += sh.cost
				if sh.lane == nil {
					continue
				}
				if sh.PerMinute > sh.lane.PerMinute*1.0001 {
					t.Errorf("seed %d: %s runs at %v of %v a minute", seed, sh.Lane, sh.PerMinute, sh.lane.PerMinute)
				}
				// What a lane does in its time is what its rate gives.
				if made := sh.PerMinute * float64(sh.Seconds+1) / 60; made < float64(sh.Jobs)*(1+r.Retries)*0.999 {
					t.Errorf("seed %d: %s makes %v images for %d jobs", seed, sh.Lane, made, sh.Jobs)
				}
			}
			if want := p.Jobs - p.UnservedJobs; total != want || cost != m.cost {
				t.Errorf("seed %d, %s: %d of %d jobs, $%s of $%s", seed, m.Name, total, want, cost, m.cost)
			}
			if m.Meets && p.Mixes[0].Meets && p.Mixes[0].toPay() > m.toPay()+1000 {
				t.Errorf("seed %d: %s costs $%s to pay, and %s, which is first, $%s", seed, m.Name, m.toPay(), p.Mixes[0].Name, p.Mixes[0].toPay())
			}
			if float64(m.Workers*r.Concurrency)*TargetUse/100 < float64(m.InFlight)-1 {
				t.Errorf("seed %d: %d workers for %d calls", seed, m.Workers, m.InFlight)
			}
			if m.Meets && p.DeadlineSeconds > 0 && len(r.Demands) == 1 && m.Seconds > p.DeadlineSeconds {
				t.Errorf("seed %d: %s takes %d s, with a deadline in %d s", seed, m.Name, m.Seconds, p.DeadlineSeconds)
			}
		}
		if p.Meets != (p.LateJobs == 0 && p.UnservedJobs == 0) || p.Meets && !p.Mixes[0].Meets {
			t.Errorf("seed %d: in time: %v, %d late, %d unserved", seed, p.Meets, p.LateJobs, p.UnservedJobs)
		}
	}
}

// The flow is the cheapest there is: no other way to share out a few jobs costs less.
func TestNoOtherMixIsCheaper(t *testing.T) {
	t.Parallel()
	for seed := range uint64(15) {
		rng := rand.New(rand.NewPCG(seed, 9))
		var demands []Demand
		for i := range 2 {
			d := demand(t, 1+rng.Int64N(12), []string{"1K", "4K"}[i], time.Duration(10+rng.IntN(50))*time.Minute, jobs.Online)
			demands = append(demands, d...)
		}
		// A few images a minute, so that a lane takes only some of them.
		r := request(demands, online("provisioned", 0.1+rng.Float64()/3), online("flex", 0.1+rng.Float64()/3), online("standard", 0.1+rng.Float64()/3))
		w := r.everything(true)
		s := r.solve(w)
		late, cost := exhaust(&r, w)
		if s.lateJobs() != late || s.cost != cost {
			t.Errorf("seed %d: %d late for %d, and the best is %d late for %d", seed, s.lateJobs(), s.cost, late, cost)
		}
	}
}

// exhaust tries every way to share two demands out among three lanes.
func exhaust(r *Request, w ways) (late, cost int64) {
	late = math.MaxInt64
	var at [2][3]int64
	var try func(g, i int, left int64)
	try = func(g, i int, left int64) {
		switch {
		case g == len(r.Demands):
			if l, c, ok := judge(r, w, &at); ok && (l < late || l == late && c < cost) {
				late, cost = l, c
			}
		case i == 3:
			next := int64(0)
			if g+1 < len(r.Demands) {
				next = r.Demands[g+1].Jobs
			}
			try(g+1, 0, next)
		default:
			for n := int64(0); n <= left; n++ {
				at[g][i] = n
				try(g, i+1, left-n)
			}
			at[g][i] = 0
		}
	}
	try(0, 0, r.Demands[0].Jobs)
	return late, cost
}

func judge(r *Request, w ways, at *[2][3]int64) (late, cost int64, ok bool) {
	for g := range r.Demands {
		late += r.Demands[g].Jobs
		for i := range r.Lanes {
			late -= at[g][i]
			cost += at[g][i] * unitCost(&r.Lanes[i], &r.Demands[g])
		}
	}
	for i := range r.Lanes {
		l := &r.Lanes[i]
		// Earliest deadline first: what is due by each of the two deadlines must fit.
		for g := range r.Demands {
			until, due := r.window(&r.Demands[g], l, w), int64(0)
			for o := range r.Demands {
				if r.window(&r.Demands[o], l, w) <= until {
					due += at[o][i]
				}
			}
			if due > r.capacity(l, until, 100) {
				return 0, 0, false
			}
		}
	}
	return late, cost, true
}
