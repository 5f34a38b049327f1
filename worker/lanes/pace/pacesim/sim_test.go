package pacesim

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// shorter cuts a scenario without changes to ten minutes.
func shorter(sc Scenario) Scenario {
	sc.Duration = part
	return sc
}

// bounds is what a run is held to. They leave room for other seeds.
type bounds struct {
	used, throttled float64
	settled         time.Duration
	spread          float64
}

func (b bounds) check(t *testing.T, r *Result) {
	t.Helper()
	spread, _ := r.Spread()
	t.Logf("used %.3f, throttled %.4f, settled %v, spread %.2f", r.Used(), r.SteadyThrottled(), r.Settled(), spread)
	if r.Used() < b.used {
		t.Errorf("used %.3f of the quota, want %.3f", r.Used(), b.used)
	}
	if r.SteadyThrottled() > b.throttled {
		t.Errorf("%.4f of the calls throttled, want at most %.4f", r.SteadyThrottled(), b.throttled)
	}
	if r.Settled() > b.settled {
		t.Errorf("settled after %v, want %v", r.Settled(), b.settled)
	}
	if spread > b.spread {
		t.Errorf("the busiest worker made %.2f times the calls of the idlest, want %.2f", spread, b.spread)
	}
}

// TestOurs holds package pace to what docs/pacing.md promises, in the scenarios that a short test has time for.
func TestOurs(t *testing.T) {
	t.Parallel()
	slowly := func(sc Scenario) Scenario {
		sc.Reports.Every = 15 * time.Second
		return sc
	}
	small := func(sc Scenario) Scenario {
		sc.Places = 64
		return sc
	}
	tests := []struct {
		name string
		sc   Scenario
		bounds
	}{
		{"one worker", Steady(1, 600), bounds{0.98, 0.01, 15 * time.Second, 1}},
		{"one worker, few calls", Steady(1, 60), bounds{0.94, 0.04, 30 * time.Second, 1}},
		{"one worker, very few calls", Steady(1, 20), bounds{0.92, 0.08, time.Minute, 1}},
		{"one worker, many calls", shorter(Steady(1, 15000)), bounds{0.96, 0.01, 30 * time.Second, 1}},
		{"twice and half", Stepped(1, 300, 2), bounds{0.95, 0.012, time.Minute, 1}},
		{"ten times and a tenth", Stepped(1, 300, 10), bounds{0.90, 0.015, 90 * time.Second, 1}},
		{"outage", Outage(1, 600), bounds{0.96, 0.01, time.Minute, 1}},
		{"noise", Noisy(1, 600), bounds{0.96, 0.015, time.Minute, 1}},
		{"late throttles", Late(1, 600), bounds{0.90, 0.03, 90 * time.Second, 1}},
		{"bounded growth", Growth(1, 600), bounds{0.88, 0.015, 3 * time.Minute, 1}},
		{"little demand", Idle(1, 600), bounds{0.97, 0.01, 15 * time.Second, 1}},
		{"five workers", Steady(5, 3000), bounds{0.98, 0.02, 15 * time.Second, 1.4}},
		{"five workers, few calls", Steady(5, 60), bounds{0.9, 0.05, 2 * time.Minute, 1.3}},
		{"five workers, outage", Outage(5, 600), bounds{0.95, 0.025, time.Minute, 1.5}},
		{"five workers, one is killed", Killed(5, 600), bounds{0.95, 0.025, time.Minute, 1.5}},
		{"twenty workers", Staggered(20, 3000), bounds{0.97, 0.025, time.Minute, 1.4}},
		{"twenty workers, few calls", Steady(20, 600), bounds{0.96, 0.025, 2 * time.Minute, 1.5}},
		{"twenty workers, steps", Stepped(20, 300, 2), bounds{0.92, 0.025, 90 * time.Second, 4}},
		{"twenty workers, old reports", slowly(Steady(20, 600)), bounds{0.9, 0.04, 5 * time.Minute, 4}},
		{"twenty small workers", small(Steady(20, 600)), bounds{0.65, 0.1, 2 * time.Minute, 2}},
		{"one worker, contended", Contended(1, 3000, 0.05), bounds{0.85, 0.09, 10 * time.Minute, 1}},
		{"twenty workers, contended", Contended(20, 3000, 0.05), bounds{0.9, 0.12, 10 * time.Minute, 4}},
		{"twenty workers, contended a little", Contended(20, 3000, 0.02), bounds{0.9, 0.08, 10 * time.Minute, 4}},
		{"five workers, contended a little", Contended(5, 600, 0.02), bounds{0.9, 0.06, 10 * time.Minute, 2}},
		{"a hundred workers", shorter(Steady(100, 3000)), bounds{0.95, 0.03, 2 * time.Minute, 8}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.check(t, Run(tt.sc, Ours(), 1))
		})
	}
}

// Without reports, as where listing is denied, workers share as well as those can that do not know of each other.
func TestApart(t *testing.T) {
	t.Parallel()
	denied := shorter(Staggered(20, 3000))
	denied.Reports.None = true
	want := bounds{0.96, 0.05, time.Minute, 5}
	want.check(t, Run(denied, Ours(), 1))
	want.check(t, Run(shorter(Staggered(20, 3000)), Apart(), 1))
}

// seven to twenty seconds is how long the calls of the uploads take.
var sevenToTwenty = [2]time.Duration{7 * time.Second, 20 * time.Second}

// uploads are the cases that peers were measured with, and the least time in
// which they can be done: the quota's or that of the places.
func uploads() []struct {
	sc    Scenario
	ideal time.Duration
} {
	second := [2]time.Duration{time.Second, time.Second}
	byQuota := 90 * time.Second
	byPlaces := time.Duration(900.0 / 64 * 13.5 * float64(time.Second))
	return []struct {
		sc    Scenario
		ideal time.Duration
	}{
		{Upload(64, second), byQuota},
		{Upload(256, sevenToTwenty), byQuota},
		{Upload(64, sevenToTwenty), byPlaces},
	}
}

func TestUploads(t *testing.T) {
	t.Parallel()
	for _, tt := range uploads() {
		for seed := range uint64(3) {
			r := Run(tt.sc, Ours(), seed)
			last := tt.sc.Call[1]
			if done := r.Last(); r.Done() != 900 || done > tt.ideal*11/10+last || done < tt.ideal*9/10 {
				t.Errorf("%s, seed %d: %d done after %v, want 900 after %v", tt.sc.Name, seed, r.Done(), done, tt.ideal+last)
			}
			if n := r.Throttled(); n > 20 {
				t.Errorf("%s, seed %d: %d throttled, want at most 20", tt.sc.Name, seed, n)
			}
		}
	}
}

// No rival meets the targets even where that is easy, and each does what it is
// known for: it would be no comparison if they were broken.
func TestRivals(t *testing.T) {
	t.Parallel()
	easy := shorter(Steady(5, 1200))
	for _, alg := range Rivals() {
		r := Run(easy, alg, 1)
		used, throttled := r.SteadyUsed(), r.SteadyThrottled()
		t.Logf("%-10s used %.3f, throttled %.3f", alg.Name, used, throttled)
		if used < 0.02 || used > 1.01 {
			t.Errorf("%s uses %.3f of the quota", alg.Name, used)
		}
		if used >= 0.95 && throttled <= 0.02 {
			t.Errorf("%s uses %.3f and has %.3f throttled: it is as good, so use it", alg.Name, used, throttled)
		}
	}
	if r := Run(easy, Rivals()[0], 1); r.SteadyUsed() < 0.95 || r.SteadyThrottled() < 0.3 {
		t.Errorf("back-off alone uses %.3f and has %.3f throttled, want most of it and very many", r.SteadyUsed(), r.SteadyThrottled())
	}
}

func TestRunRepeats(t *testing.T) {
	t.Parallel()
	sc := shorter(Noisy(5, 600))
	a, b := Run(sc, Ours(), 7), Run(sc, Ours(), 7)
	if diff := cmp.Diff(a.took, b.took); diff != "" {
		t.Errorf("the same seed played differently:\n%s", diff)
	}
	if c := Run(sc, Ours(), 8); cmp.Equal(a.took, c.took) {
		t.Error("another seed played the same")
	}
}

// greedy sends as fast as it can.
type greedy struct{ backoff }

func (greedy) Ready(time.Time) (bool, time.Duration) { return true, 0 }

func TestServiceGivesItsQuota(t *testing.T) {
	t.Parallel()
	greed := Algorithm{Name: "greedy", Backoff: true, New: func(string, int, uint64, time.Time) Pacer { return greedy{} }}
	for _, q := range []float64{5, 60, 600, 3000} {
		r := Run(shorter(Steady(20, q)), greed, 1)
		if most := 1 + (1+q/240)/(10*q); r.Used() > most+0.001 {
			t.Errorf("quota %g: %.4f of it were taken, want at most %.4f", q, r.Used(), most)
		}
	}
	r := Run(Outage(5, 600), greed, 1)
	for s := int(part/time.Second) + 1; s < int((part+3*time.Minute)/time.Second); s++ {
		if r.took[s] != 0 {
			t.Fatalf("second %d of the outage took %d calls", s, r.took[s])
		}
	}
}

func TestServiceIsQuietBelowItsQuota(t *testing.T) {
	t.Parallel()
	sc := Steady(1, 600)
	s := newService(&sc, 1)
	for i := range 1000 {
		if !s.take(time.Duration(i) * 101 * time.Millisecond) {
			t.Fatalf("call %d of an even stream below the quota was throttled", i)
		}
	}
}

func TestServiceBoundsGrowth(t *testing.T) {
	t.Parallel()
	sc := Steady(1, 6000)
	sc.Growth = 600
	s := newService(&sc, 1)
	taken := make([]int, 5)
	for at := time.Duration(0); at < 5*time.Minute; at += 5 * time.Millisecond {
		if s.take(at) {
			taken[at/time.Minute]++
		}
	}
	capacity := s.capacity()
	for m, n := range taken {
		want := 0.0
		for _, c := range capacity[m*60 : m*60+60] {
			want += c
		}
		if math.Abs(float64(n)-want) > 0.05*want {
			t.Errorf("minute %d took %d calls, want about %.0f", m, n, want)
		}
	}
}

func TestNoiseStaysInItsBand(t *testing.T) {
	t.Parallel()
	sc := Noisy(1, 600)
	s := newService(&sc, 3)
	low, high := math.Inf(1), 0.0
	for at := time.Duration(0); at < sc.Duration; at += time.Second {
		q := s.quota(at)
		low, high = min(low, q), max(high, q)
	}
	if low < 480 || high > 720 || high-low < 120 {
		t.Errorf("quota moved between %.0f and %.0f, want most of 480 to 720", low, high)
	}
}

func TestSettled(t *testing.T) {
	t.Parallel()
	sc := shorter(Steady(1, 600))
	r := newResult(&sc, "", newService(&sc, 1).capacity())
	for s := range r.took {
		r.took[s] = 10
		if s < 30 {
			r.took[s] = 5
		}
	}
	if got := r.Settled(); got < 25*time.Second || got > 30*time.Second {
		t.Errorf("settled after %v, want just before the 30 s at which the rate came", got)
	}
	for s := range r.refused {
		r.refused[s] = 3
	}
	if got := r.Settled(); got != Never {
		t.Errorf("settled after %v although too many calls were made throughout", got)
	}
}

func TestSpread(t *testing.T) {
	t.Parallel()
	sc := Joining(2, 600) // three workers, of which the first comes and goes
	r := newResult(&sc, "", newService(&sc, 1).capacity())
	for at := time.Duration(0); at < length; at += time.Second {
		if at >= part && at < 2*part {
			r.accepted(at, 0)
		}
		r.accepted(at, 1)
		r.accepted(at, 2)
		r.accepted(at, 2)
	}
	if spread, jain := r.Spread(); spread != 2 || math.Abs(jain-16.0/18) > 0.001 {
		t.Errorf("spread %.2f and Jain's index %.3f, want 2 and 0.889", spread, jain)
	}
}

func TestHeapOrders(t *testing.T) {
	t.Parallel()
	var h heap
	for i := range 1000 {
		h.push(event{at: time.Duration(i * 7919 % 101), seq: uint64(i)})
	}
	last := event{at: -1}
	for len(h) > 0 {
		e := h.pop()
		if e.at < last.at || e.at == last.at && e.seq < last.seq {
			t.Fatalf("%v came after %v", e, last)
		}
		last = e
	}
}

func ExampleRun() {
	r := Run(Outage(1, 600), Ours(), 1)
	fmt.Println(r.Used() > 0.95, r.SteadyThrottled() < 0.02, r.Settled() < time.Minute)
	// Output: true true true
}
