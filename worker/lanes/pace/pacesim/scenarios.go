package pacesim

import (
	"fmt"
	"time"
)

// The latencies of the scenarios.
var (
	calls = [2]time.Duration{7 * time.Second, 60 * time.Second}
	reach = [2]time.Duration{5 * time.Millisecond, 30 * time.Millisecond}
	early = [2]time.Duration{50 * time.Millisecond, 300 * time.Millisecond}
	late  = [2]time.Duration{500 * time.Millisecond, 2 * time.Second}
)

const (
	// length of a scenario, and part is a third of it: what changes changes then.
	length = 30 * time.Minute
	part   = length / 3

	// leastQuota is the least hidden quota, in calls a minute.
	leastQuota = 5
)

// Kind makes a scenario for so many workers and a quota in calls a minute.
type Kind struct {
	Name string
	New  func(workers int, perMinute float64) Scenario
}

// Kinds are the scenarios of the table.
func Kinds() []Kind {
	return []Kind{
		{"steady", Steady},
		{"staggered", Staggered},
		{"x2", func(n int, q float64) Scenario { return Stepped(n, q/2, 2) }},
		{"x10", func(n int, q float64) Scenario { return Stepped(n, q/10, 10) }},
		{"outage", Outage},
		{"noise", Noisy},
		{"late", Late},
		{"growth", Growth},
		{"joining", Joining},
		{"idle", Idle},
		{"killed", Killed},
	}
}

// Steady is a quota that does not change.
func Steady(workers int, perMinute float64) Scenario {
	return Scenario{
		Name: fmt.Sprintf("%d workers, %g a minute", workers, perMinute), Duration: length,
		Steps: []Step{{PerMinute: perMinute}}, Call: calls, Throttle: early, Reach: reach, Workers: workers,
	}
}

// Staggered workers start within a minute.
func Staggered(workers int, perMinute float64) Scenario {
	sc := Steady(workers, perMinute)
	sc.Stagger = time.Minute
	return sc
}

// Stepped is a quota that rises by a factor and falls again.
func Stepped(workers int, perMinute, factor float64) Scenario {
	low := max(leastQuota, perMinute)
	sc := Steady(workers, low)
	sc.Steps = []Step{{0, low}, {part, low * factor}, {2 * part, low}}
	return sc
}

// Outage is one of three minutes.
func Outage(workers int, perMinute float64) Scenario {
	sc := Steady(workers, perMinute)
	sc.Steps = []Step{{0, perMinute}, {part, 0}, {part + 3*time.Minute, perMinute}}
	return sc
}

// Noisy has other tenants that move the quota by up to 20 % up and down.
func Noisy(workers int, perMinute float64) Scenario {
	sc := Steady(workers, perMinute)
	sc.Noise, sc.NoisePeriod = 0.2, time.Minute
	return sc
}

// Late has throttles that take up to two seconds, and steps.
func Late(workers int, perMinute float64) Scenario {
	sc := Stepped(workers, perMinute/3, 3)
	sc.Throttle = late
	return sc
}

// Growth has a service that lets the admitted rate grow by a fifth of the quota
// a minute, and steps.
func Growth(workers int, perMinute float64) Scenario {
	sc := Stepped(workers, perMinute/3, 3)
	sc.Growth = perMinute / 5
	return sc
}

// Joining has a fifth more workers from a third of the time to two thirds.
func Joining(workers int, perMinute float64) Scenario {
	more := max(1, workers/5)
	sc := Steady(workers+more, perMinute)
	sc.From, sc.Until = map[int]time.Duration{}, map[int]time.Duration{}
	for i := range more {
		sc.From[i], sc.Until[i] = part, 2*part
	}
	return sc
}

// Killed has a fifth of the workers killed after a third of the time.
func Killed(workers int, perMinute float64) Scenario {
	sc := Steady(workers, perMinute)
	sc.Killed, sc.Until = true, map[int]time.Duration{}
	for i := range workers / 5 {
		sc.Until[i] = part
	}
	return sc
}

// Contended has a share of the calls throttled whatever the rate, as in a pool that
// is shared with strangers.
func Contended(workers int, perMinute, share float64) Scenario {
	sc := Steady(workers, perMinute)
	sc.Contended = share
	return sc
}

// Idle has a third of the time in which jobs come at a quarter of the quota.
func Idle(workers int, perMinute float64) Scenario {
	sc := Steady(workers, perMinute)
	sc.Phases = []Phase{{part, 2 * part, perMinute / 4}}
	return sc
}

// Upload is the case that peers were measured with on sockets: one worker, 900
// jobs, 600 calls a minute. Places bound the calls in flight.
func Upload(places int, call [2]time.Duration) Scenario {
	sc := Steady(1, 600)
	sc.Name = fmt.Sprintf("900 jobs, %d in flight, calls of %v to %v", places, call[0], call[1])
	sc.Jobs, sc.Places, sc.Call = 900, places, call
	return sc
}
