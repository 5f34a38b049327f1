package scalesim_test

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/assetmill/assetmill/internal/plan"
	"github.com/assetmill/assetmill/internal/scalesim"
	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
)

// question is a campaign, for the plan and for the simulation alike.
type question struct {
	name        string
	jobs        int64
	size        string
	within      time.Duration
	lanes       []plan.Lane // rates are images a minute
	concurrency int
	warm        bool   // workers were announced
	mix         string // empty: the first
	// exact: the fleet may have as many workers as the plan says and no more. Otherwise the autoscaler is free up to max, and shows by itself how many it
	// takes; that takes ten minutes at least, so the campaign must be longer.
	exact bool
	max   int
}

func lane(tier string, perMinute float64, call time.Duration) plan.Lane {
	return plan.Lane{Name: tier, Model: "gemini-3-pro-image", Location: "global", Tier: tier, PerMinute: perMinute, Source: plan.Given, CallTime: call}
}

var questions = []question{
	{name: "small project", jobs: 20_000, size: "1K", lanes: []plan.Lane{lane("standard", 120, 20*time.Second)}, concurrency: 64, max: 12},
	{name: "a day's campaign", jobs: 300_000, size: "1K", lanes: []plan.Lane{lane("standard", 1200, 25*time.Second)}, concurrency: 400, max: 12},
	{name: "large quota", jobs: 500_000, size: "1K", lanes: []plan.Lane{lane("standard", 4800, 25*time.Second)}, concurrency: 400, max: 12},
	{name: "1.2 million", jobs: 1_200_000, size: "2K", lanes: []plan.Lane{lane("standard", 5000, 35*time.Second)}, concurrency: 400, max: 12},
	{name: "many small workers", jobs: 150_000, size: "1K", lanes: []plan.Lane{lane("standard", 1500, 22*time.Second)}, concurrency: 64, max: 40},
	{name: "slow calls, 4K", jobs: 60_000, size: "4K", lanes: []plan.Lane{lane("standard", 700, 50*time.Second)}, concurrency: 400, max: 12},
	{name: "short", jobs: 50_000, size: "1K", lanes: []plan.Lane{lane("standard", 3000, 25*time.Second)}, concurrency: 400, exact: true},
	{name: "short, announced", jobs: 50_000, size: "1K", lanes: []plan.Lane{lane("standard", 3000, 25*time.Second)}, concurrency: 400, warm: true, exact: true},
	{name: "flex alone is in time", jobs: 200_000, size: "1K", within: 8 * time.Hour, lanes: []plan.Lane{lane("flex", 700, 45*time.Second), lane("standard", 1200, 25*time.Second)},
		concurrency: 400, max: 12},
	{name: "flex is not enough", jobs: 300_000, size: "1K", within: 6 * time.Hour, lanes: []plan.Lane{lane("flex", 600, 45*time.Second), lane("standard", 1200, 25*time.Second)},
		concurrency: 400, exact: true},
	{name: "all lanes at once", jobs: 300_000, size: "1K", within: 6 * time.Hour, lanes: []plan.Lane{lane("flex", 600, 45*time.Second), lane("standard", 1200, 25*time.Second)},
		concurrency: 400, mix: "quickest", max: 12},
	{name: "provisioned and flex", jobs: 250_000, size: "1K", within: 5 * time.Hour, lanes: []plan.Lane{lane("provisioned", 300, 20*time.Second), lane("flex", 1000, 45*time.Second)},
		concurrency: 400, exact: true},
}

const retries = 0.01

func (q *question) plan(t *testing.T) *plan.Mix {
	t.Helper()
	c := jobs.DefaultCatalogue()
	start := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	message := &schemas.Job{Prompt: "x", Size: q.size}
	if q.within > 0 {
		message.Deadline = start.Add(q.within).Format(time.RFC3339)
	}
	j, err := c.Parse(message)
	if err != nil {
		t.Fatal(err)
	}
	counter := plan.NewCounter(c, start)
	counter.AddTokens(j, jobs.Online, plan.DefaultPromptTokens, q.jobs)
	r := plan.Request{
		Demands: counter.Demands(), Lanes: q.lanes, Concurrency: q.concurrency, StartUp: plan.DefaultStartUp, Reserve: plan.DefaultReserve, Retries: retries,
		WorkerPrice: plan.DefaultWorkerPrice,
	}
	if q.warm {
		r.StartUp = 0
	}
	p, err := plan.Make(r)
	if err != nil {
		t.Fatal(err)
	}
	for i := range p.Mixes {
		if p.Mixes[i].Name == q.mix || q.mix == "" {
			return &p.Mixes[i]
		}
	}
	t.Fatalf("there is no mix %q", q.mix)
	return nil
}

// scenario is the same campaign for the whole fleet, set up as the plan advises.
func (q *question) scenario(t *testing.T, m *plan.Mix) *scalesim.Scenario {
	t.Helper()
	sc := &scalesim.Scenario{
		Seed: 7, Length: 20 * 24 * time.Hour, UntilDone: true,
		Worker: scalesim.DeployedWorker(), Pods: scalesim.AutopilotPods(), Metrics: scalesim.GoogleLags(), Rules: scalesim.Deployed(),
	}
	sc.Worker.Concurrency, sc.Rules.PerWorker, sc.Rules.MaxWorkers = q.concurrency, q.concurrency*plan.TargetUse/100, q.max
	if q.exact {
		sc.Rules.MaxWorkers = m.Workers
	}
	at := time.Duration(0)
	if q.warm {
		at = 15 * time.Minute
		sc.Rules.Announced = []scalesim.Announced{{From: 0, To: time.Hour, Workers: m.Workers}}
	}
	sc.Arrivals = []scalesim.Arrival{{Name: q.name, At: at, Over: time.Second, Jobs: int(q.jobs)}}
	c := jobs.DefaultCatalogue()
	model := c.DefaultModel()
	for _, sh := range m.Shares {
		var given *plan.Lane
		for i := range q.lanes {
			if q.lanes[i].Name == sh.Lane {
				given = &q.lanes[i]
			}
		}
		calls := scalesim.Images(given.CallTime)
		calls.Again = retries * 1_000_000
		if longest := 2 * given.CallTime; longest > calls.Longest {
			calls.Longest = longest
		}
		l := scalesim.Lane{
			Name: sh.Lane, Calls: calls, Quota: []scalesim.Step{{At: 0, PerMinute: int(given.PerMinute)}},
			Price: c.Cost(model, sh.Tier, jobs.Usage{Prompt: plan.DefaultPromptTokens, Image: int64(model.Sizes[q.size])}),
		}
		if sh.Ceiling {
			l.Ceiling = int(math.Ceil(sh.PerMinute / float64(m.Workers)))
		}
		sc.Lanes = append(sc.Lanes, l)
	}
	return sc
}

func dollars(t *testing.T, text string) float64 {
	t.Helper()
	amount, err := jobs.ParseUSD(text)
	if err != nil {
		t.Fatal(err)
	}
	return float64(amount) / 1e9
}

// comparison is one question's answers.
type comparison struct {
	question
	figures []figure
}

type figure struct {
	name               string
	planned, simulated float64
}

func compare(t *testing.T) (all []comparison) {
	t.Helper()
	for _, q := range questions {
		m := q.plan(t)
		sc := q.scenario(t, m)
		r, err := scalesim.Run(sc)
		if err != nil {
			t.Fatal(err)
		}
		if r.Done != int(q.jobs) {
			t.Errorf("%s: %d of %d jobs are done", q.name, r.Done, q.jobs)
		}
		all = append(all, comparison{q, []figure{
			{"hours", float64(m.Seconds) / 3600, (r.Ended - sc.Arrivals[0].At).Hours()},
			{"workers", float64(m.Workers), float64(r.Plateau(func(m *scalesim.Minute) int { return m.Ready }))},
			{"calls in flight", float64(m.InFlight), float64(r.Plateau(func(m *scalesim.Minute) int { return m.InFlight }))},
			{"USD", dollars(t, m.CostUSD) + dollars(t, m.RetryUSD), float64(r.ImageCost) / 1e9},
		}})
	}
	return all
}

// The plan's prediction and what comes out when the whole fleet is simulated agree within a tenth, in each figure.
func TestThePlanPredictsTheSimulation(t *testing.T) {
	t.Parallel()
	for _, c := range compare(t) {
		for _, f := range c.figures {
			if off := math.Abs(f.planned-f.simulated) / f.simulated; !(off <= plan.DefaultReserve) {
				t.Errorf("%s: %s: planned %.4g, simulated %.4g, %.0f %% off", c.name, f.name, f.planned, f.simulated, 100*off)
			}
		}
	}
}

// predictions is the table of docs/plan.md.
func predictions(t *testing.T) string {
	var b strings.Builder
	b.WriteString("| campaign | jobs | lanes, images a minute | hours | simulated | workers | simulated | calls in flight | simulated | USD | simulated |\n|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, c := range compare(t) {
		var rates []string
		for _, l := range c.lanes {
			rates = append(rates, fmt.Sprintf("%s %.0f", l.Name, l.PerMinute))
		}
		fmt.Fprintf(&b, "| %s | %d | %s |", c.name, c.jobs, strings.Join(rates, ", "))
		for _, f := range c.figures {
			form := " %.0f | %.0f |"
			if f.name == "hours" {
				form = " %.2f | %.2f |"
			}
			fmt.Fprintf(&b, form, f.planned, f.simulated)
		}
		b.WriteString("\n")
	}
	return b.String()
}
