package scalesim

import (
	"testing"
	"time"
)

func TestDemandPassesTheGateWhenWorkersAreWhatLacks(t *testing.T) {
	t.Parallel()
	a := autoscaler{rules: Deployed()}
	for name, tc := range map[string]struct {
		m    seen
		want int
	}{
		"nobody works yet":                     {seen{backlog: 90_000}, 90_000},
		"all places have calls":                {seen{backlog: 90_000, capacity: 800, inFlight: 790}, 90_000},
		"few calls, since the quota is small":  {seen{backlog: 90_000, capacity: 800, inFlight: 500}, 500},
		"no calls, since the service is down":  {seen{backlog: 90_000, capacity: 800}, 1},
		"jobs wait for a lane":                 {seen{backlog: 90_000, capacity: 800, inFlight: 700, waiting: 60}, 680},
		"as many wait as for their next calls": {seen{backlog: 90_000, capacity: 800, inFlight: 760, waiting: 40}, 90_000},
		"throttled":                            {seen{backlog: 90_000, capacity: 800, inFlight: 760, throttled: 51}, 680},
		"throttled as usual":                   {seen{backlog: 90_000, capacity: 800, inFlight: 760, throttled: 20}, 90_000},
		"little to do":                         {seen{backlog: 30, capacity: 800, inFlight: 30}, 30},
	} {
		if got := a.demand(tc.m); got != tc.want {
			t.Errorf("%s: demand %d, want %d", name, got, tc.want)
		}
	}
}

// fed lets an autoscaler look at the same thing for a while, and returns the replicas each minute.
func fed(a *autoscaler, from, minutes int, m seen) (all []int) {
	for now := from * 60; now < (from+minutes)*60; now++ {
		a.step(now, a.replicas, m)
		if now%60 == 59 {
			all = append(all, a.replicas)
		}
	}
	return all
}

func equal(a, b []int) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func TestTheFleetGrowsByItsPolicies(t *testing.T) {
	t.Parallel()
	a := &autoscaler{rules: Deployed()}
	if got, want := fed(a, 0, 5, seen{backlog: 100_000}), []int{3, 6, 12, 12, 12}; !equal(got, want) {
		t.Errorf("workers minute by minute %v, want %v", got, want)
	}
}

func TestTheFleetShrinksAfterItsWindowAndStepByStep(t *testing.T) {
	t.Parallel()
	a := &autoscaler{rules: Deployed(), replicas: 12}
	fed(a, 0, 1, seen{backlog: 100_000})
	got := fed(a, 1, 20, seen{backlog: 300, capacity: 4800, inFlight: 300})
	// Ten minutes after the last recommendation of 12, then a quarter every two minutes.
	want := []int{12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 9, 9, 6, 6, 4, 4, 3, 3, 2, 2}
	if !equal(got, want) {
		t.Errorf("workers minute by minute %v, want %v", got, want)
	}
}

func TestNoneIsLeftAfterTheCooldown(t *testing.T) {
	t.Parallel()
	a := &autoscaler{rules: Deployed(), replicas: 1}
	fed(a, 0, 1, seen{backlog: 1})
	got := fed(a, 1, 20, seen{})
	for i, n := range got {
		if want := boolean(time.Duration(i+1)*time.Minute < Deployed().Cooldown); n != want {
			t.Errorf("%d workers after %d idle minutes", n, i+1)
		}
	}
	if got := fed(a, 21, 1, seen{backlog: 1}); got[0] != 1 {
		t.Errorf("%d workers for one job", got[0])
	}
}

func TestSmallDifferencesAreTolerated(t *testing.T) {
	t.Parallel()
	for demand, want := range map[int]int{340 * 10: 10, 340*10 + 340: 10, 340*10 - 340: 10, 340*11 + 1: 12, 340*9 - 1: 9} {
		a := &autoscaler{rules: Deployed(), replicas: 10}
		if got := a.average(demand, 340); got != want {
			t.Errorf("a demand of %d asks for %d workers, want %d", demand, got, want)
		}
	}
}

func TestAgeAsksForMoreWhileWorkersAreWhatLacks(t *testing.T) {
	t.Parallel()
	a := &autoscaler{rules: Deployed(), replicas: 4}
	for name, tc := range map[string]struct {
		m    seen
		want int
	}{
		"young":           {seen{backlog: 5000, capacity: 1600, inFlight: 1600, oldest: 60}, 1},
		"old":             {seen{backlog: 5000, capacity: 1600, inFlight: 1600, oldest: 1200}, 6},
		"clamped":         {seen{backlog: 5000, capacity: 1600, inFlight: 1600, oldest: 1 << 20}, 6},
		"few jobs":        {seen{backlog: 1500, capacity: 1600, inFlight: 1500, oldest: 1 << 20}, 0},
		"gate is closed":  {seen{backlog: 5000, capacity: 1600, inFlight: 600, oldest: 1 << 20}, 0},
		"nobody works":    {seen{backlog: 5000, oldest: 1 << 20}, 0},
		"about right":     {seen{backlog: 5000, capacity: 1600, inFlight: 1600, oldest: 920}, 4},
		"nobody measures": {seen{}, 0},
	} {
		if got := a.byAge(4, tc.m); got != tc.want {
			t.Errorf("%s: %d workers, want %d", name, got, tc.want)
		}
	}
}

func TestAnnouncedCampaignsHaveTheirWorkers(t *testing.T) {
	t.Parallel()
	rules := Deployed()
	rules.Announced = []Announced{{From: time.Minute, To: 30 * time.Minute, Workers: 6}}
	a := &autoscaler{rules: rules}
	if got := fed(a, 0, 5, seen{}); !equal(got, []int{0, 3, 6, 6, 6}) {
		t.Errorf("workers minute by minute %v", got)
	}
	if got := fed(a, 5, 60, seen{}); got[20] != 6 || got[59] != 0 {
		t.Errorf("workers minute by minute %v", got)
	}
}

func TestMetricsAreSeenLate(t *testing.T) {
	t.Parallel()
	l := lagged{every: 60, hidden: 120}
	for now := range 400 {
		got := l.at(now, func() seen { return seen{backlog: now + 1} }).backlog
		want := 0
		if now >= 120 {
			want = (now-120)/60*60 + 1
		}
		if got != want {
			t.Fatalf("at %d s a backlog of %d is seen, want %d", now, got, want)
		}
	}
}
