package scalesim_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/assetmill/assetmill/internal/scalesim"
	"github.com/assetmill/assetmill/jobs"
)

var update = flag.Bool("update", false, "write the plots and tables of the documentation instead of comparing them")

const docs = "../../docs"

// setting is a day with something changed.
type setting struct {
	name   string
	change func(*scalesim.Scenario)
}

var settings = []setting{
	{"as deployed", func(*scalesim.Scenario) {}},
	{"nothing announced", func(sc *scalesim.Scenario) { sc.Rules.Announced = nil }},
	{"backlog without the gate", func(sc *scalesim.Scenario) { sc.Rules.Gate = scalesim.Gate{} }},
	{"the same, up to 60 workers", func(sc *scalesim.Scenario) { sc.Rules.Gate, sc.Rules.MaxWorkers = scalesim.Gate{}, 60 }},
	{"gate by throttled calls alone", func(sc *scalesim.Scenario) { sc.Rules.Gate = scalesim.Gate{ThrottledAbove: 5} }},
	{"scale-in after 30 s, at once", quickScaleIn},
	{"grace of 75 s", func(sc *scalesim.Scenario) { sc.Worker.Grace = 75 * time.Second }},
	{"grace of 10 s: a worker pool", func(sc *scalesim.Scenario) { sc.Worker.Grace = 10 * time.Second }},
	{"worker pool, quick scale-in", func(sc *scalesim.Scenario) { sc.Worker.Grace = 10 * time.Second; quickScaleIn(sc) }},
}

func quickScaleIn(sc *scalesim.Scenario) { sc.Rules.DownWindow, sc.Rules.Down = 30*time.Second, nil }

// days are the days with each setting, simulated once.
var days = sync.OnceValues(func() (map[string]*scalesim.Result, error) {
	all := map[string]*scalesim.Result{}
	for _, s := range settings {
		sc := scalesim.Day()
		s.change(sc)
		r, err := scalesim.Run(sc)
		if err != nil {
			return nil, err
		}
		all[s.name] = r
	}
	return all, nil
})

func simulated(t *testing.T) map[string]*scalesim.Result {
	t.Helper()
	all, err := days()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestNoCallIsLostWhenTheFleetShrinks(t *testing.T) {
	t.Parallel()
	r := simulated(t)["as deployed"]
	if r.Lost != 0 {
		t.Errorf("%d calls were cut off, %d of them slow ones", r.Lost, r.LostSlow)
	}
	if r.Stops < 10 || r.InFlightAtStops < 100 {
		t.Errorf("only %d workers with %d calls in flight were stopped: this day proves nothing", r.Stops, r.InFlightAtStops)
	}
	for _, c := range r.Campaigns {
		if c.Ended == 0 {
			t.Errorf("campaign %s was not done by midnight", c.Name)
		}
	}
}

// A grace of 75 s is long enough for every usual call, and not for those that take up to five minutes. Ten seconds are not enough for most.
func TestGraceIsWhatKeepsCalls(t *testing.T) {
	t.Parallel()
	all := simulated(t)
	if r := all["grace of 75 s"]; r.Lost != r.LostSlow {
		t.Errorf("a grace of 75 s: %d calls were cut off, and only %d of them took longer than a minute", r.Lost, r.LostSlow)
	}
	if r := all["grace of 10 s: a worker pool"]; 2*r.Lost < r.InFlightAtStops {
		t.Errorf("a grace of 10 s: %d of %d calls were cut off", r.Lost, r.InFlightAtStops)
	}
}

func TestMoreWorkersMakeNoMoreQuota(t *testing.T) {
	t.Parallel()
	all := simulated(t)
	gate, open := all["as deployed"], all["the same, up to 60 workers"]
	for i, c := range gate.Campaigns {
		if gain := c.Ended - open.Campaigns[i].Ended; gain > 5*time.Minute {
			t.Errorf("campaign %s is done %s sooner without the gate", c.Name, gain)
		}
	}
	if open.PodSeconds < 2*gate.PodSeconds {
		t.Errorf("without the gate, workers are there for %d h, with it for %d h", open.PodSeconds/3600, gate.PodSeconds/3600)
	}
}

// table is the days side by side.
func table(t *testing.T) string {
	all := simulated(t)
	var b strings.Builder
	b.WriteString("| setting | launch done after | evening done after | oldest job | worker hours | workers USD | workers stopped | calls in flight then | cut off | of these slow | paid for nothing, USD |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, s := range settings {
		r := all[s.name]
		oldest := 0
		for _, m := range r.Minutes {
			oldest = max(oldest, m.Oldest)
		}
		price := scalesim.Day().Lanes[0].Price
		fmt.Fprintf(&b, "| %s | %s | %s | %d min | %.0f | %s | %d | %d | %d | %d | %s |\n", s.name, after(r.Campaigns[1]), after(r.Campaigns[2]), oldest/60,
			float64(r.PodSeconds)/3600, r.PodCost.Cents(), r.Stops, r.InFlightAtStops, r.Lost, r.LostSlow, (jobs.USD(r.Lost) * price).Cents())
	}
	return b.String()
}

func after(c scalesim.CampaignEnd) string {
	return fmt.Sprintf("%.0f min", (c.Ended - c.At).Minutes())
}

func TestPlotsAndTablesAreUpToDate(t *testing.T) {
	t.Parallel()
	all := simulated(t)
	day := scalesim.Day()
	upToDate(t, "img/autoscaling-day.svg", fleetChart("A day of 1.2 million jobs, simulated", day, all["as deployed"], 0, 24*time.Hour, 2*time.Hour))
	upToDate(t, "img/autoscaling-morning.svg",
		fleetChart("The same day from 05:50 to 07:20: a campaign that nobody announced", day, all["as deployed"], 350*time.Minute, 440*time.Minute, 10*time.Minute))
	upToDate(t, "img/autoscaling-settings.svg", settingsChart(day, all))
	inserted(t, "autoscaling.md", "settings", table(t))
	inserted(t, "autoscaling.md", "spill", spillTable(t))
	inserted(t, "plan.md", "predictions", predictions(t))
}

// settingsChart shows the workers of several settings, one above the other.
func settingsChart(day *scalesim.Scenario, all map[string]*scalesim.Result) string {
	c := &chart{title: "Workers on the same day with other settings", from: 0, to: 24 * time.Hour, tick: 2 * time.Hour, bands: bands(day)}
	for _, name := range []string{"as deployed", "backlog without the gate", "gate by throttled calls alone", "scale-in after 30 s, at once"} {
		r := all[name]
		c.panels = append(c.panels, panel{name, []line{
			{name: "workers, with those that start or stop", color: blue, filled: true, values: each(r, func(m *scalesim.Minute) float64 { return float64(m.Pods) })},
			{name: "calls in flight / 340", color: green, values: each(r, func(m *scalesim.Minute) float64 { return float64(m.InFlight) / 340 })},
		}})
	}
	return c.svg()
}

// spillTable shows what spill_after does to a campaign that could go by two lanes.
func spillTable(t *testing.T) string {
	var b strings.Builder
	b.WriteString("| spill_after | done after | flex images | standard images | USD | workers |\n|---|---|---|---|---|---|\n")
	for _, spill := range []time.Duration{0, 2 * time.Minute} {
		sc := scalesim.Day()
		price := sc.Lanes[0].Price
		sc.UntilDone, sc.Rules.Announced = true, nil
		sc.Arrivals = []scalesim.Arrival{{Name: "campaign", Over: time.Second, Jobs: 300_000}}
		sc.Lanes = []scalesim.Lane{
			{Name: "flex", Price: price / 2, Quota: []scalesim.Step{{PerMinute: 1500}}, Calls: scalesim.Images(40 * time.Second)},
			{Name: "standard", Price: price, Quota: []scalesim.Step{{PerMinute: 2400}}, Calls: scalesim.Images(25 * time.Second), Spill: spill},
		}
		r, err := scalesim.Run(sc)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "| `%s` | %.0f min | %d | %d | %s | %d |\n", spill, r.Ended.Minutes(), r.Lanes[0].Calls, r.Lanes[1].Calls, r.ImageCost.Cents(),
			r.Plateau(func(m *scalesim.Minute) int { return m.Ready }))
	}
	return b.String()
}

// upToDate compares a file of the documentation with what it should hold, or writes it.
func upToDate(t *testing.T, name, want string) {
	t.Helper()
	path := filepath.Join(docs, name)
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != want {
		t.Errorf("docs/%s is out of date: run go test ./internal/scalesim -update (%v)", name, err)
	}
}

// inserted does the same with a part of a page, between two comments.
func inserted(t *testing.T, name, what, want string) {
	t.Helper()
	page, err := os.ReadFile(filepath.Join(docs, name))
	if err != nil {
		t.Fatal(err)
	}
	begin, end := "<!-- "+what+": written by internal/scalesim -->\n", "<!-- end of "+what+" -->"
	before, rest, ok1 := strings.Cut(string(page), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatalf("docs/%s has no place for %s", name, what)
	}
	upToDate(t, name, before+begin+want+end+after)
}
