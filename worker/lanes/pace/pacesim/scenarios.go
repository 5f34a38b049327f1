package pacesim

import (
	"fmt"
	"time"
)

var (
	calls   = [2]time.Duration{7 * time.Second, 60 * time.Second}
	early   = [2]time.Duration{50 * time.Millisecond, 300 * time.Millisecond}
	late    = [2]time.Duration{500 * time.Millisecond, 2 * time.Second}
	minutes = time.Minute
)

func steps(perMinute ...float64) []Step {
	var all []Step
	for i, q := range perMinute {
		all = append(all, Step{At: time.Duration(i) * 10 * minutes, PerMinute: q})
	}
	return all
}

// Steady are quotas that do not change.
func Steady(workers int, perMinute float64) Scenario {
	return Scenario{
		Name: fmt.Sprintf("steady %g", perMinute), Duration: 30 * minutes, Steps: steps(perMinute),
		Call: calls, Throttle: early, Workers: workers,
	}
}

// Up and down by a factor, ten minutes each.
func Stepped(workers int, perMinute, factor float64) Scenario {
	sc := Steady(workers, perMinute)
	sc.Name = fmt.Sprintf("%g x%g /%g", perMinute, factor, factor)
	sc.Steps = steps(perMinute, perMinute*factor, perMinute)
	return sc
}

// Outage of three minutes in the middle.
func Outage(workers int, perMinute float64) Scenario {
	sc := Steady(workers, perMinute)
	sc.Name = fmt.Sprintf("outage %g", perMinute)
	sc.Steps = []Step{{0, perMinute}, {10 * minutes, 0}, {13 * minutes, perMinute}}
	return sc
}

// Noisy has other tenants that move the quota by 20 % up and down.
func Noisy(workers int, perMinute float64) Scenario {
	sc := Steady(workers, perMinute)
	sc.Name = fmt.Sprintf("noise %g", perMinute)
	sc.Noise, sc.NoisePeriod = 0.2, minutes
	return sc
}

// Late throttles.
func Late(workers int, perMinute float64) Scenario {
	sc := Stepped(workers, perMinute/3, 3)
	sc.Name = fmt.Sprintf("late %s", sc.Name)
	sc.Throttle = late
	return sc
}

// Bounded growth.
func Bounded(workers int, perMinute float64) Scenario {
	sc := Stepped(workers, perMinute/3, 3)
	sc.Name = fmt.Sprintf("growth %s", sc.Name)
	sc.Growth = perMinute / 5
	return sc
}

// Joining and leaving: a fifth of the workers comes after ten minutes and goes after twenty.
func Joining(workers int, perMinute float64) Scenario {
	sc := Steady(workers, perMinute)
	sc.Name = fmt.Sprintf("joining %g", perMinute)
	sc.From, sc.Until = map[int]time.Duration{}, map[int]time.Duration{}
	for i := range max(1, workers/5) {
		sc.From[i], sc.Until[i] = 10*minutes, 20*minutes
	}
	return sc
}

// Staggered starts.
func Staggered(workers int, perMinute float64) Scenario {
	sc := Steady(workers, perMinute)
	sc.Name = fmt.Sprintf("staggered %g", perMinute)
	sc.Stagger = minutes
	return sc
}

// Idle has ten minutes in which few jobs arrive.
func Idle(workers int, perMinute float64) Scenario {
	sc := Steady(workers, perMinute)
	sc.Name = fmt.Sprintf("idle %g", perMinute)
	sc.Phases = []Phase{{10 * minutes, 20 * minutes, perMinute / 4}}
	return sc
}
