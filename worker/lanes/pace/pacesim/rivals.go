package pacesim

import (
	"math"
	"math/rand/v2"
	"time"
)

// Rivals are what peers do. Each is as published, with the bounds that its
// defaults set too low for this work raised: a limit may grow to all places of
// the worker and fall to one. Each throttled job waits by itself as well, as
// all of them advise.
func Rivals() []Algorithm {
	return []Algorithm{
		{Name: "backoff", Backoff: true, New: func(string, int, uint64, time.Time) Pacer { return backoff{} }},
		{Name: "aimd", Backoff: true, New: func(_ string, places int, _ uint64, _ time.Time) Pacer {
			return &aimd{inFlight: inFlight{limit: 10, most: float64(places)}}
		}},
		{Name: "gradient2", Backoff: true, New: func(_ string, places int, _ uint64, _ time.Time) Pacer {
			return &gradient2{inFlight: inFlight{limit: 20, most: float64(places)}}
		}},
		{Name: "sre", Backoff: true, New: func(_ string, _ int, seed uint64, _ time.Time) Pacer {
			return &sre{rng: rand.New(rand.NewPCG(seed, 0x737265))}
		}},
		{Name: "failsafe", Backoff: true, New: func(_ string, places int, _ uint64, _ time.Time) Pacer { return newFailsafe(places) }},
	}
}

// backoff is nothing but the waits of the single jobs.
type backoff struct{}

func (backoff) Ready(time.Time) (bool, time.Duration) { return true, 0 }
func (backoff) Begin(time.Time, bool)                 {}
func (backoff) Accepted(_, _ time.Time)               {}
func (backoff) Throttled(_, _ time.Time)              {}

// inFlight bounds the calls in flight.
type inFlight struct {
	n           int
	limit, most float64
}

func (f *inFlight) Ready(time.Time) (bool, time.Duration) { return f.n < int(f.limit), 0 }
func (f *inFlight) Begin(time.Time, bool)                 { f.n++ }
func (f *inFlight) set(limit float64)                     { f.limit = max(1, min(f.most, limit)) }

// aimd is AIMDLimit of Netflix's concurrency-limits: one call more in flight for
// each accepted one, a tenth less for each throttled one. Its time limit, beyond
// which a call counts as throttled, is off: every call here is slower.
type aimd struct {
	inFlight
}

func (a *aimd) Accepted(_, _ time.Time) {
	if float64(2*a.n) >= a.limit { // else the demand is what binds
		a.set(a.limit + 1)
	}
	a.n--
}

func (a *aimd) Throttled(now, _ time.Time) {
	a.n--
	a.set(min(a.limit-1, math.Trunc(a.limit*0.9)))
}

// average is an exponential one that begins with the plain average of ten.
type average struct{ n, value float64 }

func (a *average) add(x, window float64) float64 {
	if a.n < 10 {
		a.n++
		a.value += (x - a.value) / a.n
	} else {
		a.value += (x - a.value) * 2 / (window + 1)
	}
	return a.value
}

// gradient2 is Gradient2Limit within WindowedLimit of Netflix's
// concurrency-limits: windows of a second with ten samples or more; the limit
// follows the ratio of the long average of latencies to the window's, plus 4.
type gradient2 struct {
	inFlight
	until       time.Time
	sum, count  float64
	maxInFlight int
	long        average
}

func (g *gradient2) Accepted(now, began time.Time)  { g.sample(now, now.Sub(began).Seconds()) }
func (g *gradient2) Throttled(now, began time.Time) { g.sample(now, now.Sub(began).Seconds()) }

func (g *gradient2) sample(now time.Time, latency float64) {
	const queue, smoothing, window = 4, 0.2, 600
	g.sum, g.count, g.maxInFlight = g.sum+latency, g.count+1, max(g.maxInFlight, g.n)
	g.n--
	if !now.After(g.until) {
		return
	}
	g.until = now.Add(time.Second)
	if g.count >= 10 {
		short := g.sum / g.count
		long := g.long.add(short, window)
		if long > 2*short {
			g.long.value *= 0.9
		}
		if float64(g.maxInFlight) >= g.limit/2 {
			gradient := max(0.5, min(1, long/short))
			g.set(g.limit*(1-smoothing) + (g.limit*gradient+queue)*smoothing)
		}
	}
	g.sum, g.count, g.maxInFlight = 0, 0, 0
}

// sre is the client throttle of Google's SRE book: over the last two minutes an
// attempt is turned away with probability max(0, (requests - 2 accepts) /
// (requests + 1)). A request counts when its outcome is known: calls take up to
// a minute here, and those in flight are not failures.
type sre struct {
	rng      *rand.Rand
	requests [12]float64 // by ten seconds
	accepts  [12]float64
	slot     int64
}

func (s *sre) at(now time.Time) int {
	slot := now.Unix() / 10
	for ; s.slot < slot; s.slot++ {
		if slot-s.slot > 12 {
			s.slot = slot - 12
		}
		i := (s.slot + 1) % 12
		s.requests[i], s.accepts[i] = 0, 0
	}
	return int(slot % 12)
}

func (s *sre) Ready(time.Time) (bool, time.Duration) { return true, 0 }
func (s *sre) Begin(time.Time, bool)                 {}
func (s *sre) Throttled(now, _ time.Time)            { s.requests[s.at(now)]++ }

func (s *sre) Accepted(now, _ time.Time) {
	i := s.at(now)
	s.requests[i]++
	s.accepts[i]++
}

func (s *sre) Reject(now time.Time) bool {
	i := s.at(now)
	requests, accepts := 0.0, 0.0
	for j := range s.requests {
		requests += s.requests[j]
		accepts += s.accepts[j]
	}
	if s.rng.Float64() >= max(0, (requests-2*accepts)/(requests+1)) {
		return false
	}
	s.requests[i]++
	return true
}

// whole is the base-ten logarithm in whole numbers, but at least 1.
func whole(x float64) float64 { return max(1, math.Trunc(math.Log10(max(1, x)))) }
