package pacesim

import (
	"math"
	"slices"
	"time"
)

// failsafe is the adaptive limiter of failsafe-go v0.9.8 with its defaults,
// written from its published description because it reads the clock itself. It
// bounds the calls in flight: about every twice the shortest latency (1 s to
// 30 s) with at least 50 samples, the 90th percentile of latencies, smoothed, is
// compared with its longer average; the difference is taken for a queue, and
// the limit moves by the logarithm of itself. Correlations of calls in flight
// with throughput and latency hold it back. Throttled calls are dropped
// samples, as its documentation advises for calls that end early.
type failsafe struct {
	inFlight
	samples     []float64
	maxInFlight int
	until       time.Time

	recent             []float64 // the last five percentiles
	smoothed, baseline average
	throughput, delay  correlation
	began              []begun // calls in flight, by time, with how many there were
}

type begun struct {
	at time.Time
	n  int
}

func newFailsafe(places int) *failsafe {
	return &failsafe{inFlight: inFlight{limit: 20, most: float64(places)}}
}

func (f *failsafe) Begin(now time.Time, more bool) {
	f.inFlight.Begin(now, more)
	f.began = append(f.began, begun{now, f.n})
}

// end forgets a call and returns how many were in flight when it began.
func (f *failsafe) end(at time.Time) int {
	i, _ := slices.BinarySearchFunc(f.began, at, func(b begun, t time.Time) int { return b.at.Compare(t) })
	n := f.began[i].n
	f.began = slices.Delete(f.began, i, i+1)
	return n
}

func (f *failsafe) Throttled(now, at time.Time) {
	f.end(at)
	f.update(now)
	f.n--
}

func (f *failsafe) Accepted(now, at time.Time) {
	f.maxInFlight = max(f.maxInFlight, f.end(at))
	f.samples = append(f.samples, now.Sub(at).Seconds())
	f.update(now)
	f.n--
}

func (f *failsafe) update(now time.Time) {
	if !now.After(f.until) || len(f.samples) < 50 {
		return
	}
	slices.Sort(f.samples)
	f.adjust(f.smoothed.add(f.median(f.samples[len(f.samples)*9/10]), 5))
	f.until = now.Add(time.Duration(min(30, max(1, 2*f.samples[0])) * float64(time.Second)))
	f.samples, f.maxInFlight = f.samples[:0], 0
}

// median of the last five values, once there are five.
func (f *failsafe) median(x float64) float64 {
	f.recent = append(f.recent, x)
	if len(f.recent) < 5 {
		return x
	}
	f.recent = f.recent[len(f.recent)-5:]
	sorted := slices.Sorted(slices.Values(f.recent))
	return sorted[2]
}

func (f *failsafe) adjust(recent float64) {
	queue := math.Ceil(f.limit * (1 - f.baseline.add(recent, 10)/recent))
	in := float64(f.maxInFlight)
	throughput, cv := f.throughput.add(in, in/recent)
	delay, _ := f.delay.add(in, recent)
	full := f.n >= int(f.limit)
	limit, step := f.limit, whole(math.Trunc(f.limit))
	switch {
	case queue > 6*step,
		full && throughput < 0,
		full && throughput < 0.3 && delay > 0.5,
		full && cv < 0.2 && delay > 0.5:
		limit -= step
	case queue < 3*step:
		limit += step
	}
	if most := 5 * in; limit > most {
		limit = most
		if f.limit > most {
			limit = f.limit - step
		}
	}
	f.set(limit)
}

// correlation of the last fifty pairs; 0 for fewer than ten, or when either
// varies by less than 1 %.
type correlation struct{ x, y []float64 }

func (c *correlation) add(x, y float64) (r, cvY float64) {
	c.x, c.y = append(c.x, x), append(c.y, y)
	if len(c.x) > 50 {
		c.x, c.y = c.x[1:], c.y[1:]
	}
	n := float64(len(c.x))
	var sx, sy, sxx, syy, sxy float64
	for i := range c.x {
		sx, sy = sx+c.x[i], sy+c.y[i]
		sxx, syy, sxy = sxx+c.x[i]*c.x[i], syy+c.y[i]*c.y[i], sxy+c.x[i]*c.y[i]
	}
	vx, vy := sxx/n-sx*sx/n/n, syy/n-sy*sy/n/n
	if n < 10 || vx <= 0 || vy <= 0 {
		return 0, 0
	}
	cvY = math.Sqrt(vy) / (sy / n)
	if math.Sqrt(vx)/(sx/n) < 0.01 || cvY < 0.01 {
		return 0, cvY
	}
	return (sxy/n - sx*sy/n/n) / math.Sqrt(vx*vy), cvY
}
