package scalesim

import "time"

// seen is what the metrics show at one moment, late as they are.
type seen struct {
	backlog   int // messages that are not acknowledged, those in workers included
	oldest    int // seconds since the publication of the oldest
	inFlight  int // calls
	waiting   int // jobs in workers that wait for a lane
	capacity  int // places of the workers that show metrics; 0 when none does
	throttled int // thousandths of the calls of the last five minutes
}

// autoscaler is KEDA and the HorizontalPodAutoscaler that it manages. Times are seconds.
type autoscaler struct {
	rules      Rules
	replicas   int // that are asked for
	lastActive int
	// recommended are what was recommended at each sync, oldest first, for the stabilisation window.
	recommended []change
	changes     []change // of the number of replicas, for the policies
}

// change is a number at a time.
type change struct{ at, n int }

func secs(d time.Duration) int { return int(d / time.Second) }

func ceilDiv(a, b int) int { return (a + b - 1) / b }

// open reports whether workers may be what the calls lack. It is when no worker shows anything.
func (g Gate) open(m seen) bool {
	return !(m.capacity > 0 && (g.InFlightBelow > 0 && m.inFlight*100 < m.capacity*g.InFlightBelow ||
		g.WaitingAbove > 0 && m.waiting*100 > m.capacity*g.WaitingAbove ||
		g.ThrottledAbove > 0 && m.throttled > g.ThrottledAbove*10))
}

// demand is the value of the backlog trigger's query. While the gate is closed, full workers are no reason for more of them.
func (a *autoscaler) demand(m seen) int {
	if a.rules.Gate.open(m) {
		return m.backlog
	}
	return min(m.backlog, max(min(m.inFlight, m.capacity*a.rules.UsePercent/100), 1))
}

// announced is the value of the cron triggers.
func (a *autoscaler) announced(now int) (n int) {
	for _, c := range a.rules.Announced {
		if secs(c.From) <= now && now < secs(c.To) {
			n = max(n, c.Workers)
		}
	}
	return n
}

// step lets the autoscaler look, if it is time, and returns how many replicas it asks for.
func (a *autoscaler) step(now, ready int, m seen) int {
	if now%secs(a.rules.Poll) == 0 {
		a.activate(now, m)
	}
	if a.replicas > 0 && now%sync == 0 {
		a.resize(now, ready, m)
	}
	return a.replicas
}

// activate is KEDA's part: from none to one as soon as any trigger is active, and back after the cooldown.
func (a *autoscaler) activate(now int, m seen) {
	switch {
	case m.backlog > 0 || a.announced(now) > 0:
		a.lastActive = now
		if a.replicas == 0 {
			a.replicas = 1 // which the policies know nothing of
		}
	case a.rules.MinWorkers == 0 && now-a.lastActive >= secs(a.rules.Cooldown):
		a.replicas, a.recommended, a.changes = 0, nil, nil
	}
}

// resize is the HorizontalPodAutoscaler's part: the largest of what the triggers ask for, kept steady, and within the policies.
func (a *autoscaler) resize(now, ready int, m seen) {
	want := a.average(a.demand(m), a.rules.PerWorker)
	want = max(want, a.average(a.announced(now), 1), a.byAge(ready, m))
	want = min(max(want, 1, a.rules.MinWorkers), a.rules.MaxWorkers)
	want = a.stabilise(now, want)
	switch {
	case want > a.replicas:
		want = min(want, a.upLimit(now))
	case want < a.replicas:
		want = max(want, a.downLimit(now))
	}
	a.set(now, want)
}

// within reports whether a metric is near enough to its target.
func within(value, target int) bool {
	diff := max(value-target, target-value)
	return diff*100 <= target*tolerance
}

// average is a trigger of metric type AverageValue.
func (a *autoscaler) average(value, target int) int {
	if within(value, target*a.replicas) {
		return a.replicas
	}
	return ceilDiv(value, target)
}

// byAge is the trigger of age, of metric type Value.
func (a *autoscaler) byAge(ready int, m seen) int {
	target := secs(a.rules.AgeTarget)
	if target == 0 || m.capacity == 0 || m.backlog <= m.capacity || !a.rules.Gate.open(m) {
		return 0
	}
	age := min(m.oldest, target*a.rules.AgeClampPercent/100)
	if within(age, target) {
		return a.replicas
	}
	return ceilDiv(age*ready, target)
}

// stabilise returns the largest recommendation of the window, if that is smaller than the fleet.
func (a *autoscaler) stabilise(now, want int) int {
	a.recommended = append(a.recommended, change{now, want})
	for a.recommended[0].at < now-secs(a.rules.DownWindow) {
		a.recommended = a.recommended[1:]
	}
	highest := want
	for _, r := range a.recommended {
		highest = max(highest, r.n)
	}
	return max(want, min(a.replicas, highest))
}

// before is the number of replicas at the beginning of a policy's period.
func (a *autoscaler) before(now int, p Policy) int {
	n := a.replicas
	for _, c := range a.changes {
		if c.at > now-secs(p.Period) {
			n -= c.n
		}
	}
	return n
}

// upLimit is how large the fleet may become: what the most generous policy allows.
func (a *autoscaler) upLimit(now int) int {
	if len(a.rules.Up) == 0 {
		return a.rules.MaxWorkers
	}
	limit := a.replicas
	for _, p := range a.rules.Up {
		began := a.before(now, p)
		limit = max(limit, ceilDiv(began*(100+p.Percent), 100)+p.Workers)
	}
	return limit
}

// downLimit is how small the fleet may become.
func (a *autoscaler) downLimit(now int) int {
	if len(a.rules.Down) == 0 {
		return 0
	}
	limit := a.replicas
	for _, p := range a.rules.Down {
		began := a.before(now, p)
		limit = min(limit, began*(100-p.Percent)/100-p.Workers)
	}
	return limit
}

func (a *autoscaler) set(now, n int) {
	if n == a.replicas {
		return
	}
	a.changes = append(a.changes, change{now, n - a.replicas})
	for now-a.changes[0].at > longestPeriod(a.rules.Up, a.rules.Down) {
		a.changes = a.changes[1:]
	}
	a.replicas = n
}

func longestPeriod(lists ...[]Policy) (longest int) {
	for _, list := range lists {
		for _, p := range list {
			longest = max(longest, secs(p.Period))
		}
	}
	return longest
}
