package pace

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// contended takes so many calls a second at most, and throttles a share of all.
func (f *fleet) contended(perSecond, share float64) func(int) bool {
	rng, bucket := rand.New(rand.NewPCG(1, 2)), f.bucket(perSecond)
	return func(i int) bool { return rng.Float64() >= share && bucket(i) }
}

func TestBackgroundIsLearnedAndForgotten(t *testing.T) {
	t.Parallel()
	f := newFleet(1)
	calls, took := 0.0, 0.0
	count := func(take func(int) bool) func(int) bool {
		return func(i int) bool {
			calls++
			ok := take(i)
			if ok {
				took++
			}
			return ok
		}
	}
	const quota, share = 8.0, 0.1
	f.run(8*time.Minute, f.contended(quota, share))
	f.run(8*time.Minute, count(f.contended(quota, share)))
	if used := took / (8 * 60 * quota); used < 0.8 {
		t.Errorf("used %.2f of a quota in whose pool a tenth of the calls is throttled, want 0.8", used)
	}
	if throttled := 1 - took/calls; throttled > share+0.05 {
		t.Errorf("%.3f of the calls throttled, want at most 0.15", throttled)
	}
	f.run(45*time.Minute, f.bucket(quota)) // what was learned fades with ten minutes
	calls, took = 0, 0
	f.run(5*time.Minute, count(f.bucket(quota)))
	if throttled := 1 - took/calls; throttled > 0.03 {
		t.Errorf("%.3f of the calls throttled after contention is over, want at most 0.03", throttled)
	}
}

// A lane without contention teaches none, however many share it.
func TestQuotaIsNoBackground(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 3} {
		for _, quota := range []float64{2, 20} {
			f := newFleet(n)
			f.run(15*time.Minute, f.bucket(quota))
			for i, w := range f.workers {
				if w.law.back.share > 0.01 {
					t.Errorf("%d workers on %g calls a second: w%d takes %.4f for background", n, quota, i, w.law.back.share)
				}
			}
		}
	}
}

// All go slower at the same time, and by what one of them says.
func TestAllEaseTogether(t *testing.T) {
	t.Parallel()
	f := newFleet(3)
	f.run(30*time.Second, f.bucket(60))
	ease := f.workers[0].ease
	for i, w := range f.workers {
		if w.ease != ease || ease == 0 {
			t.Fatalf("w%d slows down at %d, w0 at %d", i, w.ease, ease)
		}
	}
	f.run(f.workers[0].at(ease).Sub(f.now), f.bucket(60))
	for i, w := range f.workers {
		if !w.law.back.eased(f.now) || w.law.back.eased(f.now.Add(easeTime)) {
			t.Errorf("w%d does not slow down for %v", i, easeTime)
		}
	}
}

func TestWhatEvidenceShows(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ calls, throttles, share, most float64 }{
		{0, 0, 0, 1},
		{99, 0, 0, 0.01},
		{9999, 0, 0, 0.0001},
		{9999, -3, 0, 0.0001},
		{999, 1, 0, 0.003},
		{9999, 25, 0, 0.0031}, // less than what matters
		{970, 49, 0.049, 57.0 / 971},
		{10, 1e9, maxBackground, 1},
	} {
		share, most := shown(tt.calls, tt.throttles)
		if math.Abs(share-tt.share) > 1e-9 || math.Abs(most-tt.most) > 1e-9 {
			t.Errorf("%g throttles of %g calls: %.5f, at most %.5f; want %g and %g", tt.throttles, tt.calls, share, most, tt.share, tt.most)
		}
	}
}

// Every throttle counts while no background is known.
func TestWithoutBackgroundEachThrottleCounts(t *testing.T) {
	t.Parallel()
	c := newCaller(Config{})
	c.run(10*time.Second, accept)
	before := c.l.Rate()
	c.l.Throttled(c.now, c.next(), 0)
	if got := c.l.Rate(); got > 0.95*before {
		t.Errorf("the rate went from %.0f to %.0f", before, got)
	}
	c.l.back.share, c.l.back.known = 0.1, 100
	c.run(time.Second, accept)
	before = c.l.Rate()
	c.l.Throttled(c.now, c.next(), 0)
	if got := c.l.Rate(); got < before {
		t.Errorf("one throttle in a pool with a tenth of them took the rate from %.0f to %.0f", before, got)
	}
	for range 100 {
		c.l.Throttled(c.now, c.next(), 0)
	}
	if got := c.l.Rate(); got > 0.2*before {
		t.Errorf("nothing but throttles left %.0f of %.0f", got, before)
	}
}
