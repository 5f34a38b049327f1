package plan

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
	"github.com/assetmill/assetmill/worker"
	"github.com/assetmill/assetmill/worker/lanes"
)

// example is the lanes that docs/lanes.md shows.
func example(t *testing.T) *lanes.Config {
	t.Helper()
	const name = "../../worker/lanes/testdata/example.yaml"
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := lanes.Parse(name, data, jobs.DefaultCatalogue())
	if err != nil {
		t.Fatal(err)
	}
	if err := cfg.SetProject("example"); err != nil {
		t.Fatal(err)
	}
	return cfg
}

// A plan counts on a lane for a job exactly if workers may send the job there.
func TestLanesServeWhatWorkersSendThem(t *testing.T) {
	t.Parallel()
	catalogue := jobs.DefaultCatalogue()
	for name, cfg := range map[string]*lanes.Config{"example": example(t), "default": lanes.Default("example", "", catalogue)} {
		planned, _ := FromConfig(cfg)
		for _, id := range catalogue.ModelIDs() {
			m := catalogue.Model(id)
			for _, size := range m.SizeNames() {
				for _, region := range append([]string{jobs.GlobalRegion}, m.Locations...) {
					j := parse(t, &schemas.Job{Model: id, Size: size, Region: region})
					var want map[string]bool
					// Lanes are called one after the other, at their pace: in a bubble that takes no time.
					synctest.Test(t, func(t *testing.T) { want = reachable(t, cfg, j) })
					got := map[string]bool{}
					for _, l := range planned {
						if l.serves(&Demand{Model: m, Size: size, Region: region, Mode: jobs.Online}) {
							got[l.Name] = true
						}
					}
					if diff := cmp.Diff(want, got); diff != "" {
						t.Errorf("%s, model %s, size %s, region %s: workers (-) and plan (+): %s", name, id, size, region, diff)
					}
				}
			}
		}
	}
}

// reachable asks the workers' own routing: each lane that a job is given is shut, until there is none.
func reachable(t *testing.T, cfg *lanes.Config, j *jobs.Job) map[string]bool {
	t.Helper()
	set := lanes.New(cfg, lanes.Options{Storable: func(string) bool { return true }, Seed: 1, MaxInFlight: 1})
	all := map[string]bool{}
	for range cfg.Lanes {
		permit, err := set.Next(context.Background(), j)
		if err != nil {
			if !errors.Is(err, worker.ErrNoLane) && !errors.Is(err, worker.ErrLanesShut) {
				t.Fatal(err)
			}
			break
		}
		name := permit.Lane().Name
		all[name] = true
		permit.Drop()
		set.Shut(name, errors.New("seen"))
	}
	return all
}

func TestRatesAreThoseThatAreKnownBest(t *testing.T) {
	t.Parallel()
	fresh := func() []Lane {
		return []Lane{
			{Name: "std", Model: "m", Location: "global", Tier: "standard"}, {Name: "flx", Model: "m", Location: "global", Tier: "flex"},
			{Name: "far", Model: "m", Location: "us-east1", Tier: "standard"},
		}
	}
	learned := map[string]LearnedLane{"std": {700, 22 * time.Second}, "far": {300, 0}}
	type known struct {
		PerMinute float64
		Source    Source
		CallTime  time.Duration
	}
	for name, tc := range map[string]struct {
		rates Rates
		want  [3]known
	}{
		"nothing":  {Rates{}, [3]known{{600, Assumed, 0}, {600, Assumed, 0}, {0, Unknown, 0}}},
		"for all":  {Rates{PerMinute: 50, CallTime: time.Minute}, [3]known{{50, Given, time.Minute}, {50, Given, time.Minute}, {0, Unknown, time.Minute}}},
		"learned":  {Rates{PerMinute: 50, Learned: learned}, [3]known{{700, Learned, 22 * time.Second}, {50, Given, 0}, {300, Learned, 0}}},
		"by tier":  {Rates{Named: map[string]float64{"standard": 80, "flex": 9000}}, [3]known{{80, Given, 0}, {3000, Given, 0}, {0, Unknown, 0}}},
		"by name":  {Rates{Named: map[string]float64{"far": 90, "std": 70, "standard": 80}}, [3]known{{70, Given, 0}, {600, Assumed, 0}, {90, Given, 0}}},
		"of calls": {Rates{CallTimes: map[string]time.Duration{"flex": time.Minute, "std": time.Second}, Learned: learned}, [3]known{{700, Learned, time.Second}, {600, Assumed, time.Minute}, {300, Learned, 0}}},
		"calls told for all win over learned ones": {Rates{CallTime: time.Hour, Learned: learned}, [3]known{{700, Learned, time.Hour}, {600, Assumed, time.Hour}, {300, Learned, time.Hour}}},
	} {
		all := fresh()
		if err := tc.rates.Apply(all, func(l *Lane) bool { return l.Location == "global" }); err != nil {
			t.Fatal(err)
		}
		var got [3]known
		for i, l := range all {
			got[i] = known{l.PerMinute, l.Source, l.CallTime}
		}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	wrong := Rates{CallTimes: map[string]time.Duration{"fllex": time.Second}}
	if err := wrong.Apply(fresh(), func(*Lane) bool { return true }); err == nil || !strings.Contains(err.Error(), `"fllex" is no lane and no tier; there are the lanes far, flx, std`) {
		t.Errorf("error %v", err)
	}
}

func TestHomeIsWhereJobsGoFirst(t *testing.T) {
	t.Parallel()
	all, batch := FromConfig(example(t))
	home := func(demands ...Demand) (names []string) {
		is := Home(all, "global", demands)
		for i := range all {
			if is(&all[i]) {
				names = append(names, all[i].Name)
			}
		}
		return names
	}
	flash := jobs.DefaultCatalogue().Model("gemini-2.5-flash-image")
	anywhere := []string{pro + "/global/provisioned", pro + "/global/flex", pro + "/global/standard", "pro/second-project", "own-endpoint"}
	if diff := cmp.Diff(anywhere, home(Demand{Model: flash, Region: "global"})); diff != "" {
		t.Error(diff)
	}
	strict := append([]string{}, anywhere[:4]...)
	strict = append(strict, "gemini-2.5-flash-image/europe-west4/standard", "own-endpoint")
	if diff := cmp.Diff(strict, home(Demand{Model: flash, Region: "europe-west4"})); diff != "" {
		t.Error(diff)
	}
	if len(batch) != 1 || batch[0].Tier != "batch" {
		t.Errorf("batch lanes %+v", batch)
	}
	if got := DefaultBatch(jobs.DefaultCatalogue()); len(got) != 4 || got[0].Name != "gemini-2.5-flash-image/global/batch" {
		t.Errorf("default batch lanes %+v", got)
	}
}
