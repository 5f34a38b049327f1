package pacesim

import (
	"math"
	"time"
)

const (
	// settling is the time after a step that does not count as steady state:
	// twice the target of 60 s.
	settling = 2 * time.Minute

	// settleWindow is the least time over which a rate is averaged to say whether it
	// has settled, and settleCalls the least number of calls of the quota in it:
	// a window with fewer says nothing about 10 %.
	settleWindow = 10 * time.Second
	settleCalls  = 40

	// settleBand is how near a settled rate is.
	settleBand = 0.1
)

// Result is what one run did, by seconds.
type Result struct {
	Scenario, Algorithm string
	sc                  *Scenario
	capacity            []float64
	took, refused       []int32
	byWorker            [][]int32 // accepted in the steady state, by step and worker
	steady              []span
	last                time.Duration
	done                int
}

type span struct{ from, to int }

func newResult(sc *Scenario, algorithm string, capacity []float64) *Result {
	n := len(capacity)
	r := &Result{
		Scenario: sc.Name, Algorithm: algorithm, sc: sc, capacity: capacity,
		took: make([]int32, n), refused: make([]int32, n),
	}
	for _, s := range r.spans() {
		s.from = min(s.from+int(settling/time.Second), s.to)
		r.steady = append(r.steady, s)
		r.byWorker = append(r.byWorker, make([]int32, sc.Workers))
	}
	return r
}

// spans are the times between the changes that a scenario makes: steps, phases
// and comings and goings.
func (r *Result) spans() []span {
	at := map[int]bool{0: true, len(r.capacity): true}
	add := func(d time.Duration) {
		if s := int(d / time.Second); s < len(r.capacity) {
			at[s] = true
		}
	}
	for _, s := range r.sc.Steps {
		add(s.At)
	}
	for _, p := range r.sc.Phases {
		add(p.From)
		add(p.To)
	}
	for _, m := range []map[int]time.Duration{r.sc.From, r.sc.Until} {
		for _, d := range m {
			add(d)
		}
	}
	var all []span
	from := 0
	for s := 1; s <= len(r.capacity); s++ {
		if at[s] {
			all = append(all, span{from, s})
			from = s
		}
	}
	return all
}

func (r *Result) accepted(at time.Duration, worker int) {
	s := int(at / time.Second)
	r.took[s]++
	for i, p := range r.steady {
		if p.from <= s && s < p.to {
			r.byWorker[i][worker]++
		}
	}
}

func (r *Result) throttled(at time.Duration) { r.refused[at/time.Second]++ }

func (r *Result) finished(at time.Duration) {
	r.last = at
	r.done++
}

// offered says whether there are more jobs than quota in the second s.
func (r *Result) offered(s int) bool {
	t := time.Duration(s) * time.Second
	for _, p := range r.sc.Phases {
		if p.From <= t && t < p.To {
			return false
		}
	}
	return r.capacity[s] > 0
}

func (r *Result) sum(spans []span) (capacity, took, refused float64) {
	for _, p := range spans {
		for s := p.from; s < p.to; s++ {
			if r.offered(s) {
				capacity += r.capacity[s]
				took += float64(r.took[s])
				refused += float64(r.refused[s])
			}
		}
	}
	return capacity, took, refused
}

// Used is the share of the hidden quota that was used, from the first second to
// the last, in so far as there were jobs for it.
func (r *Result) Used() float64 {
	c, t, _ := r.sum([]span{{0, len(r.capacity)}})
	return t / c
}

// SteadyUsed is the same in the steady state.
func (r *Result) SteadyUsed() float64 {
	c, t, _ := r.sum(r.steady)
	return t / c
}

// SteadyThrottled is the share of calls that were throttled in the steady state.
func (r *Result) SteadyThrottled() float64 {
	_, t, f := r.sum(r.steady)
	return f / max(1, t+f)
}

// Throttled is the number of throttled calls in the whole run.
func (r *Result) Throttled() int {
	n := 0
	for _, f := range r.refused {
		n += int(f)
	}
	return n
}

// Settled is the longest time from a change to the first window in which the
// calls taken are at least 90 % of the quota and the calls made at most 10 % too
// many. +Inf: never.
func (r *Result) Settled() time.Duration {
	worst := time.Duration(0)
	for _, p := range r.spans() {
		if !r.offered(p.from) {
			continue
		}
		worst = max(worst, r.settled(p))
	}
	return worst
}

// Never is the time to settle of a run that does not.
const Never = time.Duration(math.MaxInt64)

func (r *Result) settled(p span) time.Duration {
	for s := p.from; s < p.to; s++ {
		var quota, took, refused float64
		end := s
		for ; end < p.to && (time.Duration(end-s)*time.Second < settleWindow || quota < settleCalls); end++ {
			quota += r.capacity[end]
			took += float64(r.took[end])
			refused += float64(r.refused[end])
		}
		if end == p.to && s > p.from {
			return Never
		}
		// One call more or less is the width of a window, not a deviation.
		if took >= (1-settleBand)*quota-1 && took+refused <= (1+settleBand)*(quota+1) {
			return time.Duration(s-p.from) * time.Second
		}
	}
	return Never
}

// Spread is how differently the workers fared that were there throughout: the
// most divided by the least, the worst of all steady times, and Jain's index.
func (r *Result) Spread() (maxMin, jain float64) {
	maxMin, jain = 1, 1
	for i, counts := range r.byWorker {
		var n, sum, squares float64
		low, high := math.Inf(1), 0.0
		for w, c := range counts {
			if !r.present(w, r.steady[i]) {
				continue
			}
			x := float64(c)
			n, sum, squares = n+1, sum+x, squares+x*x
			low, high = min(low, x), max(high, x)
		}
		if sum > 0 && r.steady[i].to > r.steady[i].from && r.offered(r.steady[i].from) {
			maxMin = max(maxMin, high/low)
			jain = min(jain, sum*sum/(n*squares))
		}
	}
	return maxMin, jain
}

func (r *Result) present(w int, p span) bool {
	from := r.sc.From[w]
	until, leaves := r.sc.Until[w]
	return from <= time.Duration(p.from)*time.Second && (!leaves || until >= time.Duration(p.to)*time.Second)
}

// Done is how many jobs were done, and Last when the last one was.
func (r *Result) Done() int           { return r.done }
func (r *Result) Last() time.Duration { return r.last }
