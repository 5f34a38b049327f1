package pace

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

var epoch = time.Unix(1_800_000_000, 0)

// caller makes calls as soon as the limiter lets it, in virtual time.
type caller struct {
	l     *Limiter
	now   time.Time
	more  bool
	begun []time.Time
}

func newCaller(cfg Config) *caller {
	return &caller{l: New(cfg, epoch), now: epoch, more: true}
}

// warmed returns a caller whose calls were accepted for so long.
func warmed(d time.Duration) *caller {
	c := newCaller(Config{})
	c.run(d, accept)
	return c
}

// next begins the next call, at the earliest time.
func (c *caller) next() time.Time {
	c.now = c.now.Add(c.l.Wait(c.now))
	c.l.Begin(c.now, c.more)
	c.begun = append(c.begun, c.now)
	return c.now
}

// run makes calls for so long and answers each at once.
func (c *caller) run(d time.Duration, answer func(l *Limiter, now, began time.Time)) {
	for end := c.now.Add(d); c.now.Before(end); {
		began := c.next()
		answer(c.l, c.now, began)
	}
}

// sameRate fails the test if the rate is not what it was before.
func (c *caller) sameRate(t *testing.T, before float64, although string) {
	t.Helper()
	if after := c.l.Rate(); after != before {
		t.Errorf("the rate went from %.1f to %.1f although %s", before, after, although)
	}
}

func accept(l *Limiter, now, began time.Time) { l.Accepted(now, began) }
func refuse(l *Limiter, now, began time.Time) { l.Throttled(now, began, 0) }
func lose(l *Limiter, now, began time.Time)   { l.Lost(now, began) }

func TestStartsWithinASecondAndGrows(t *testing.T) {
	t.Parallel()
	c := newCaller(Config{Seed: 1})
	if w := c.l.Wait(epoch); w < 0 || w > time.Second {
		t.Errorf("the first call waits %v, want at most 1 s", w)
	}
	if got := c.l.Rate(); got != 60 {
		t.Errorf("starts with %.0f calls a minute, want 60", got)
	}
	c.run(30*time.Second, accept)
	if got := c.l.Rate(); got < 15000 {
		t.Errorf("after 30 s without a throttle: %.0f calls a minute, want 15,000", got)
	}
}

func TestGrowthFromCallToCallIsBounded(t *testing.T) {
	t.Parallel()
	c := newCaller(Config{})
	c.run(10*time.Minute, refuse)
	for range 50 {
		before := c.l.Rate()
		c.l.Accepted(c.now, c.next())
		if after := c.l.Rate(); after > 2.03*before {
			t.Fatalf("the rate grew from %.1f to %.1f between two calls", before, after)
		}
	}
}

func TestSpacing(t *testing.T) {
	t.Parallel()
	c := warmed(20 * time.Second)
	for range 100 {
		began := c.next()
		interval := time.Duration(60 / c.l.Rate() * float64(time.Second))
		if w := c.l.Wait(began); w < interval-time.Microsecond || w > interval+time.Microsecond {
			t.Fatalf("the next call waits %v, want the interval of %v", w, interval)
		}
	}
}

func TestLateTimersDoNotSlowDown(t *testing.T) {
	t.Parallel()
	c := newCaller(Config{MaxPerMinute: 6000})
	c.run(30*time.Second, accept)
	from, n := c.now, 0
	for ; n < 1000; n++ {
		c.now = c.now.Add(c.l.Wait(c.now)).Add(time.Millisecond)
		c.l.Begin(c.now, true)
		c.l.Accepted(c.now, c.now)
	}
	if took := c.now.Sub(from); took > 10100*time.Millisecond || took < 9900*time.Millisecond {
		t.Errorf("1,000 calls at 10 ms took %v with a timer that is 1 ms late, want 10 s", took)
	}
}

func TestDemandDoesNotInflate(t *testing.T) {
	t.Parallel()
	c := warmed(5 * time.Second)
	c.more = false
	before := c.l.Rate()
	c.run(10*time.Minute, accept)
	c.sameRate(t, before, "the demand was what bound")
}

func TestCallsThatBeginLateDoNotInflate(t *testing.T) {
	t.Parallel()
	c := warmed(5 * time.Second)
	before := c.l.Rate()
	for range 500 { // something else, such as calls in flight, lets one begin only each second
		c.now = c.now.Add(time.Second)
		c.l.Begin(c.now, true)
		c.l.Accepted(c.now, c.now)
	}
	c.sameRate(t, before, "something else was what bound")
}

func TestIdleTimeGivesNoBurst(t *testing.T) {
	t.Parallel()
	for _, idle := range []time.Duration{time.Second, 30 * time.Second, 10 * time.Minute, 1000 * time.Hour} {
		c := warmed(15 * time.Second)
		rate := c.l.Rate() / 60
		c.now = c.now.Add(idle)
		c.begun = nil
		c.run(time.Second, accept)
		if n, most := len(c.begun), rate*1.5+2; float64(n) > most {
			t.Errorf("after %v without calls %d began within a second, want at most %.0f", idle, n, most)
		}
	}
}

func TestLongIdleTimeForgets(t *testing.T) {
	t.Parallel()
	c := warmed(15 * time.Second)
	c.now = c.now.Add(time.Hour)
	c.next()
	if got := c.l.Rate(); got != 60 {
		t.Errorf("after an hour without calls: %.1f calls a minute, want the 60 of the start", got)
	}
	c.run(30*time.Second, accept)
	if got := c.l.Rate(); got < 15000 {
		t.Errorf("and 30 s later %.0f, want 15,000", got)
	}
}

func TestThrottlesOfOneMomentAreOneEvent(t *testing.T) {
	t.Parallel()
	c := warmed(12 * time.Second)
	var began []time.Time
	for range 50 {
		began = append(began, c.next())
	}
	before := c.l.Rate()
	c.now = c.now.Add(100 * time.Millisecond)
	c.l.Throttled(c.now, began[0], 0)
	first := c.l.Rate()
	for _, b := range began[1:] {
		c.now = c.now.Add(time.Millisecond)
		c.l.Throttled(c.now, b, 0)
	}
	if first > 0.7*before || first < 0.4*before {
		t.Errorf("a throttle in the search took the rate from %.0f to %.0f, want about 60 %%", before, first)
	}
	c.sameRate(t, first, "the other 49 throttled calls began before it fell")
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	tests := []struct{ asked, least, most time.Duration }{
		{0, 0, 2 * time.Second},
		{10 * time.Second, 10 * time.Second, 11 * time.Second},
		{time.Minute, time.Minute, 66 * time.Second},
		{time.Hour, 2 * time.Minute, 2 * time.Minute},
		{math.MaxInt64, 2 * time.Minute, 2 * time.Minute},
		{-time.Hour, 0, 2 * time.Second},
	}
	for _, tt := range tests {
		c := warmed(5 * time.Second)
		began := c.next()
		c.l.Throttled(c.now, began, tt.asked)
		if w := c.l.Wait(c.now); w < tt.least || w > tt.most {
			t.Errorf("Retry-After %v: waits %v, want %v to %v", tt.asked, w, tt.least, tt.most)
		}
	}
}

// A throttle that tells nothing new still carries a Retry-After.
func TestRetryAfterOfAnOldCall(t *testing.T) {
	t.Parallel()
	c := newCaller(Config{})
	old := c.next()
	began := c.next()
	c.l.Throttled(c.now, began, 0)
	rate := c.l.Rate()
	c.l.Throttled(c.now, old, 30*time.Second)
	if w := c.l.Wait(c.now); w < 30*time.Second {
		t.Errorf("waits %v, want 30 s", w)
	}
	c.sameRate(t, rate, "the throttled call began before it fell")
}

// A pause that the service asked for outlasts throttles of calls that were under way and that bring no Retry-After.
func TestRetryAfterOutlastsOtherThrottles(t *testing.T) {
	t.Parallel()
	c := warmed(5 * time.Second)
	old, throttled := c.next(), c.next()
	c.l.Throttled(c.now, throttled, 0)
	fresh := c.next() // begins after the rate was cut, so that its own throttle is news
	c.l.Throttled(c.now, old, 30*time.Second)
	c.now = c.now.Add(time.Second)
	c.l.Throttled(c.now, fresh, 0)
	if w := c.l.Wait(c.now); w < 29*time.Second {
		t.Errorf("waits %v, want the 29 s that are left", w)
	}
}

func TestOutageIsProbedAndLeft(t *testing.T) {
	t.Parallel()
	c := warmed(12 * time.Second)
	before := c.l.Rate()
	c.begun = nil
	c.run(3*time.Minute, refuse)
	if n := len(c.begun); n < 10 || n > 100 {
		t.Errorf("%d calls in an outage of three minutes, want 10 to 100", n)
	}
	c.run(40*time.Second, accept)
	if after := c.l.Rate(); after < before {
		t.Errorf("40 s after the outage: %.0f calls a minute, want the %.0f from before", after, before)
	}
}

func TestFloor(t *testing.T) {
	t.Parallel()
	c := newCaller(Config{})
	for range 10000 {
		began := c.next()
		c.now = c.now.Add(100 * time.Millisecond)
		c.l.Throttled(c.now, began, 0)
		if w := c.l.Wait(c.now); w > 72*time.Second+time.Millisecond {
			t.Fatalf("waits %v at the floor, want at most 72 s", w)
		}
	}
	if got := c.l.Rate(); got < 0.999 || got > 1.001 {
		t.Errorf("%.3f calls a minute after a long outage, want 1", got)
	}
}

func TestLostCallsTeachNothing(t *testing.T) {
	t.Parallel()
	c := warmed(5 * time.Second)
	before := c.l.Rate()
	c.run(time.Minute, lose)
	if after := c.l.Rate(); after > 1.2*before || after < before {
		t.Errorf("a minute of lost calls took the rate from %.1f to %.1f", before, after)
	}
}

func TestSilenceIsNotTrustedForEver(t *testing.T) {
	t.Parallel()
	unanswered := func(*Limiter, time.Time, time.Time) {}
	c := newCaller(Config{})
	c.more = false
	c.run(2*time.Minute, unanswered)
	c.more = true
	before := c.l.Rate()
	c.run(time.Minute, unanswered)
	if after := c.l.Rate(); after > before {
		t.Errorf("the rate grows from %.0f to %.0f although nothing was answered for two minutes", before, after)
	}
	c.l.Accepted(c.now, c.begun[0])
	c.next()
	if after := c.l.Rate(); after <= before {
		t.Error("the rate does not grow again with the first answer")
	}
}

// Throttles that have nothing to do with the rate slow a worker down, but not to
// the floor.
func TestRandomThrottles(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ share, least, most float64 }{{0.01, 300, 1200}, {0.05, 60, 240}, {0.2, 10, 60}} {
		rng := rand.New(rand.NewPCG(1, 1))
		c := newCaller(Config{})
		c.run(time.Hour, func(l *Limiter, now, began time.Time) {
			if rng.Float64() < tt.share {
				l.Throttled(now, began, 0)
			} else {
				l.Accepted(now, began)
			}
		})
		if perMinute := float64(len(c.begun)) / 60; perMinute < tt.least || perMinute > tt.most {
			t.Errorf("%.2f of calls throttled at random: %.0f calls a minute, want %.0f to %.0f", tt.share, perMinute, tt.least, tt.most)
		}
	}
}

func TestCeiling(t *testing.T) {
	t.Parallel()
	for _, limit := range []float64{0.1, 3, 100, 6000} {
		c := newCaller(Config{MaxPerMinute: limit})
		for i := range 5000 {
			began := c.next()
			if c.l.Rate() > limit*(1+1e-9) {
				t.Fatalf("ceiling %g: %.3f calls a minute", limit, c.l.Rate())
			}
			if i%500 == 0 {
				c.l.Throttled(c.now, began, 0)
			} else {
				c.l.Accepted(c.now, began)
			}
		}
	}
	for _, limit := range []float64{0, -1, math.NaN(), math.Inf(1), math.Inf(-1)} {
		c := newCaller(Config{MaxPerMinute: limit})
		c.run(30*time.Second, accept)
		if got := c.l.Rate(); got < 15000 {
			t.Errorf("ceiling %v: %.0f calls a minute after 30 s, want no ceiling", limit, got)
		}
	}
}

func TestClockThatStandsStill(t *testing.T) {
	t.Parallel()
	l := New(Config{}, epoch)
	for i := range 10000 {
		l.Begin(epoch, true)
		switch i % 3 {
		case 0:
			l.Accepted(epoch, epoch)
		case 1:
			l.Throttled(epoch, epoch, 0)
		default:
			l.Lost(epoch, epoch)
		}
		check(t, l, epoch, math.Inf(1))
	}
}

func check(t *testing.T, l *Limiter, now time.Time, ceiling float64) {
	t.Helper()
	if w := l.Wait(now); w < 0 || w > 2*time.Minute {
		t.Fatalf("Wait is %v", w)
	}
	if r := l.Rate(); !(r > 0) || math.IsInf(r, 0) || r > ceiling*(1+1e-9) {
		t.Fatalf("Rate is %v with a ceiling of %v", r, ceiling)
	}
}

// callEvents is how many of the events of tellAny are about calls.
const callEvents = 5

// tellAny tells a pacer something about a call, by chance, or does nothing: the caller gives a meaning to the events from callEvents on, of so
// many in all.
func tellAny(rng *rand.Rand, l interface {
	Begin(now time.Time, more bool)
	Accepted(now, began time.Time)
	Throttled(now, began time.Time, retryAfter time.Duration)
	Lost(now, began time.Time)
}, now time.Time, events int) (event int) {
	began := now.Add(-time.Duration(rng.ExpFloat64() * float64(10*time.Second)))
	switch event = rng.IntN(events); event {
	case 0, 1:
		l.Begin(now, rng.IntN(4) > 0)
	case 2:
		l.Accepted(now, began)
	case 3:
		l.Throttled(now, began, time.Duration(rng.Int64()>>rng.IntN(64)))
	case 4:
		l.Lost(now, began)
	}
	return event
}

// Whatever is told in whatever order, the invariants hold.
func TestInvariants(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		ceiling := math.Inf(1)
		cfg := Config{Seed: seed}
		if seed%3 == 0 {
			cfg.MaxPerMinute = math.Exp(10 * rng.Float64())
			ceiling = cfg.MaxPerMinute
		}
		now := epoch
		l := New(cfg, now)
		for range 2000 {
			if tellAny(rng, l, now, callEvents+1) == callEvents {
				now = now.Add(time.Duration(math.Exp(40*rng.Float64()) - 1))
			}
			check(t, l, now, ceiling)
		}
	}
}

func TestSeeds(t *testing.T) {
	t.Parallel()
	play := func(seed uint64) (begun []time.Time) {
		c := newCaller(Config{Seed: seed})
		for i := range 200 {
			began := c.next()
			if i%10 == 9 {
				c.l.Throttled(c.now, began, time.Second)
			}
		}
		return c.begun
	}
	a, b, other := play(1), play(1), play(2)
	same := 0
	for i := range a {
		if !a[i].Equal(b[i]) {
			t.Fatalf("call %d began at %v and at %v with the same seed", i, a[i], b[i])
		}
		if a[i].Equal(other[i]) {
			same++
		}
	}
	if same > 0 {
		t.Errorf("%d of %d calls began at the same time with another seed", same, len(a))
	}
}

func BenchmarkCall(b *testing.B) {
	l := New(Config{MaxPerMinute: 15000}, epoch)
	now := epoch
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		now = now.Add(l.Wait(now))
		l.Begin(now, true)
		if i%100 == 0 {
			l.Throttled(now, now, 0)
		} else {
			l.Accepted(now, now)
		}
	}
}
