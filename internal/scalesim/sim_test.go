package scalesim

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// small is a short scenario, varied by its seed.
func small(seed uint64) *Scenario {
	rng := rand.New(rand.NewPCG(seed, 1))
	sc := Day()
	sc.Seed, sc.Length = seed, 4*time.Hour
	sc.Arrivals = []Arrival{
		{At: 0, Over: 3 * time.Hour, Jobs: rng.IntN(5000)},
		{Name: "a", At: time.Duration(rng.IntN(60)) * time.Minute, Over: time.Duration(rng.IntN(600)) * time.Second, Jobs: rng.IntN(40_000)},
	}
	calls := Images(time.Duration(15+rng.IntN(20)) * time.Second)
	calls.Slow, calls.SlowUpTo, calls.Again = rng.IntN(5000), 5*time.Minute, rng.IntN(50_000)
	sc.Lanes = nil
	for i := range 1 + rng.IntN(3) {
		sc.Lanes = append(sc.Lanes, Lane{
			Name: string(rune('a' + i)), Price: imagePrice, Calls: calls, Spill: time.Duration(i*rng.IntN(30)) * time.Second, Ceiling: rng.IntN(2) * 500,
			Quota: []Step{{0, rng.IntN(3000)}, {time.Hour, rng.IntN(3000)}, {2 * time.Hour, 100 + rng.IntN(3000)}},
		})
	}
	sc.Worker.Concurrency = 20 + rng.IntN(200)
	sc.Worker.Grace = time.Duration(5+rng.IntN(400)) * time.Second
	sc.Rules.PerWorker = max(1, sc.Worker.Concurrency*85/100)
	return sc
}

// Whatever happens, every job that came is done, held or in the queue, no worker holds more than its places, and no lane takes more than its quota.
func TestNothingIsLostOrInvented(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		sc := small(seed)
		s := newSim(sc)
		for s.now = 0; s.now < secs(sc.Length); s.now++ {
			s.second()
			held := 0
			for _, p := range s.pods {
				held += p.held()
				if p.held() > sc.Worker.Concurrency || p.inFlight < 0 || p.slow < 0 || p.storing < 0 || p.slow > p.inFlight {
					t.Fatalf("seed %d, second %d: a worker has %d calls in flight, %d slow, %d to store, holds %d", seed, s.now, p.inFlight, p.slow, p.storing, p.held())
				}
			}
			if s.done+held+s.queue != s.arrived || s.queue < 0 {
				t.Fatalf("seed %d, second %d: %d jobs came, %d are done, %d held, %d in the queue", seed, s.now, s.arrived, s.done, held, s.queue)
			}
		}
		s.finish()
		again, begun := 0, 0
		for _, l := range s.result.Lanes {
			again += l.Again
			begun += l.Calls
		}
		inFlight := 0
		for _, p := range s.pods {
			inFlight += p.inFlight + p.storing
		}
		// Each call that was taken made an image, was made again, was lost, or is under way; the last two may be of either kind.
		if rest := begun - s.done - s.result.Lost - inFlight; rest > again || rest < again-s.result.Lost-inFlight {
			t.Errorf("seed %d: %d calls for %d images, %d again, %d lost, %d under way", seed, begun, s.done, again, s.result.Lost, inFlight)
		}
		if begun == 0 {
			t.Errorf("seed %d: no call was made", seed)
		}
	}
}

func TestLanesKeepToTheirQuotaAndUseIt(t *testing.T) {
	t.Parallel()
	sc := Day()
	sc.Length, sc.Arrivals = 3*time.Hour, []Arrival{{Jobs: 1_000_000}}
	sc.Lanes[0].Quota = []Step{{0, 3000}, {time.Hour, 900}, {2 * time.Hour, 2100}}
	r, err := Run(sc)
	if err != nil {
		t.Fatal(err)
	}
	for i := 20; i < len(r.Minutes); i++ {
		m := &r.Minutes[i]
		accepted := m.Attempts - m.Throttled
		if accepted > m.Quota+1 {
			t.Errorf("minute %d: %d calls of a quota of %d", i, accepted, m.Quota)
		}
		if i%60 < 20 {
			continue // lanes settle after a change, and the fleet after them
		}
		if accepted*100 < m.Quota*98 || m.Throttled > (throttlesPerMinute+2)*m.Ready {
			t.Errorf("minute %d: %d calls of a quota of %d, %d throttled", i, accepted, m.Quota, m.Throttled)
		}
	}
}

func TestCallsTakeAsLongAsTheySay(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	for _, mean := range []time.Duration{15 * time.Second, 25 * time.Second, 45 * time.Second} {
		calls := Images(mean)
		l := newLane(&Lane{Calls: calls})
		sum := 0
		const n = 100_000
		for range n {
			length, slow := l.length(rng)
			if length < secs(calls.Shortest) || length > secs(calls.Longest) || slow {
				t.Fatalf("a call takes %d s", length)
			}
			sum += length
		}
		if got := float64(sum) / n; got < 0.99*mean.Seconds() || got > 1.01*mean.Seconds() {
			t.Errorf("calls take %.2f s on average, want %s", got, mean)
		}
	}
	slow := newLane(&Lane{Calls: Calls{Shortest: 7 * time.Second, Mean: 20 * time.Second, Longest: time.Minute, Slow: million, SlowUpTo: 5 * time.Minute}})
	for range 1000 {
		if length, is := slow.length(rng); !is || length <= 60 || length > 300 {
			t.Fatalf("a slow call takes %d s", length)
		}
	}
}

func TestTheSameSeedIsTheSameDay(t *testing.T) {
	t.Parallel()
	a, err := Run(small(3))
	if err != nil {
		t.Fatal(err)
	}
	b, _ := Run(small(3))
	c, _ := Run(small(4))
	if cmp.Diff(a, b) != "" || cmp.Diff(a, c) == "" {
		t.Error("the seed does not decide the result")
	}
}

// A grace that is shorter than any call loses what is in flight, one that is longer than the longest loses nothing, and a lost call's job is done all the same.
func TestGraceDecidesWhatIsLost(t *testing.T) {
	t.Parallel()
	for grace, want := range map[time.Duration]bool{time.Second: true, 61 * time.Second: false} {
		sc := small(5)
		sc.UntilDone, sc.Length, sc.Worker.Grace = true, 24*time.Hour, grace
		for i := range sc.Lanes {
			sc.Lanes[i].Calls.Slow = 0
		}
		quick := sc.Rules
		quick.Down, quick.DownWindow = nil, 0
		sc.Rules = quick
		r, err := Run(sc)
		if err != nil {
			t.Fatal(err)
		}
		if r.Done != r.Arrived || r.Stops == 0 || (r.Lost > 0) != want {
			t.Errorf("grace %s: %d stops with %d calls in flight, %d lost; %d of %d jobs done", grace, r.Stops, r.InFlightAtStops, r.Lost, r.Done, r.Arrived)
		}
	}
}

func TestScenariosThatMakeNoSense(t *testing.T) {
	t.Parallel()
	for want, spoil := range map[string]func(*Scenario){
		"length":       func(sc *Scenario) { sc.Length = 0 },
		"no lane":      func(sc *Scenario) { sc.Lanes = nil },
		"no worker":    func(sc *Scenario) { sc.Worker.Concurrency = 0 },
		"pods start":   func(sc *Scenario) { sc.Pods.StartMin = time.Hour },
		"interval":     func(sc *Scenario) { sc.Metrics.QueueEvery = 0 },
		"no quota":     func(sc *Scenario) { sc.Lanes[0].Quota = nil },
		"on average":   func(sc *Scenario) { sc.Lanes[0].Calls.Mean = time.Hour },
		"slow calls":   func(sc *Scenario) { sc.Lanes[0].Calls.SlowUpTo = time.Second },
		"s at most":    func(sc *Scenario) { sc.Lanes[0].Calls.SlowUpTo = time.Hour },
		"arrive after": func(sc *Scenario) { sc.Arrivals[0].Jobs = -1 },
	} {
		sc := Day()
		spoil(sc)
		if _, err := Run(sc); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v", want, err)
		}
	}
}
