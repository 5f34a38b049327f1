package pace

import (
	"math"
	"math/rand/v2"
	"time"
)

// Growth and cuts. Growth is that of the logarithm of the rate, in 1/s: 0.35
// doubles the rate in 2 s. Cuts are logarithms too: 0.8 leaves 45 %.
const (
	// startRate is where a limiter begins, in calls a second: the order of what new
	// projects get (2 to 20 a minute were reported), and 20 s away from 15,000 a
	// minute.
	startRate = 1.0
	// maxRate bounds the rate where nothing else does, in calls a second: four times
	// the peak of the whole system.
	maxRate = 1000.0
	// startGrowth is the growth while nothing is known.
	startGrowth = 0.35
	// stepGrowth bounds the growth after a silence that is longer than expected: the
	// quota has risen, but there is an order to keep with the other workers.
	stepGrowth = 0.1
	// callGrowth bounds the growth from one call to the next: a factor of two.
	callGrowth = 0.7

	// overshoot is how much deeper than the estimated overshoot a cut goes, so that
	// the service's bucket fills again. Less, and one throttle brings the next;
	// more, and quota is left lying.
	overshoot = 1.2
	// A throttle within repeatCalls calls of the last cut shows that the cut was too
	// shallow. The first such cut is at least 2*repeatCut, each further one twice as
	// deep, up to maxCut.
	repeatCalls = 2
	repeatCut   = 0.05
	maxCut      = 0.8
	maxRepeats  = 4
	// After fallRepeats such cuts of a rate that was tracked, which grew by less than
	// trackGrowth from call to call, the quota has fallen, and nobody knows how far:
	// what the last cut took too much is searched for.
	fallRepeats = 2
	trackGrowth = 0.01
	// provenCalls is how many calls after the last cut show that the lane gave the
	// rate. Fewer may have been luck.
	provenCalls = 8

	// calm is the growth below which a throttle is taken for a call that came a
	// moment too early: it is tried again after retryAfterPart of an interval.
	calm      = 0.02
	retryPart = 0.1
	// Otherwise a throttled call moves this worker's calls by a random part of the
	// interval, so that workers do not collide again and again.
	minShift = 0.2
)

// The time between throttles that is aimed at. See [period].
const (
	basePeriod  = 20.0  // s; each halving of it doubles the throttled share
	periodScale = 70.0  // s * (calls/s)^0.5; from 12 calls a second on the period falls
	minPeriod   = 5.0   // s; a throttle may take 2 s to arrive
	periodCalls = 50.0  // calls; on the way there and back it is one throttle in sixty
	maxPeriod   = 150.0 // s; longer, and a rise goes unnoticed for longer than jobs wait

	// A silence of lateAfter periods, or of more where not every throttle counts, is longer
	// than expected. From then on growth doubles each lateDoubling periods, or, where these
	// are long, each lateCalls calls but not sooner than each lateTime.
	lateAfter    = 1.25
	lateDoubling = 0.2
	lateCalls    = 2.0
	lateTime     = 2.0 // s
	// Below slowRate calls a second that begins with a growth of at least lateGrowth a
	// call: there are too few calls to begin with next to nothing.
	slowRate   = 0.6
	lateGrowth = 0.005
)

// Probing while everything is throttled.
const (
	// The slowest rate is floorShare of what the lane gave before, between minFloor
	// and maxFloor calls a second. memory is how soon "before" is forgotten: the
	// time constant of an exponential.
	floorShare = 0.1
	minFloor   = 1.0 / 60
	maxFloor   = 1.0 / 5
	memory     = 10 * time.Minute
)

// Other bounds.
const (
	// maxWait bounds Wait whatever the service asks for and whatever the clock does.
	maxWait = 2 * time.Minute
	// unheard is for how long calls may begin without any answer before growth
	// stops: twice the longest usual call.
	unheard = 2 * time.Minute
	// crowd is for how long after a cut, at most, the calls that were already on
	// their way may still be what others are throttled for.
	crowd = 0.1 // s
	// maxAge bounds the age of a throttled call that is reckoned with: a 503 that
	// comes later says nothing about the rate back then.
	maxAge = 3.0 // s
	// What was learned ages after idleAfter without a call: each idleHalf halves the
	// rate, down to startRate. The service punishes sharp ramps.
	idleAfter = time.Minute
	idleHalf  = time.Minute
	// A call that was late, because timers are, lets the next one follow sooner by as
	// much, up to catchUp and to catchUpPart of the interval: at 15,000 a minute the
	// interval is 4 ms. On a busy machine a timer is 10 ms late, which at ten calls a
	// second is a tenth of the lane. Where the service keeps no more than one call, a
	// call too soon is throttled; there it is tightCatchUp.
	catchUp      = 0.010 // s
	tightCatchUp = 0.002 // s
	keepsOne     = 4.0   // calls a second up to which it keeps one
	catchUpPart  = 0.25
)

// Config is what a [Limiter] may be told. The zero value paces a lane of which
// nothing is known.
type Config struct {
	// MaxPerMinute is a ceiling in calls a minute above which the limiter never goes,
	// whatever the service takes. 0 or less: none but 60,000.
	MaxPerMinute float64
	// Seed changes every random choice. Give each worker its own: workers with the
	// same seed collide.
	Seed uint64
}

// Limiter paces the calls of one worker on one lane. It is not safe for
// concurrent use. Every method takes the time, which must not go backwards, so
// that it runs in real and in virtual time alike. It starts no goroutine and no
// timer, and keeps no record of single calls.
type Limiter struct {
	rng     *rand.Rand
	ceiling float64 // calls a second

	rate    float64   // calls a second
	growth  float64   // 1/s, what is left of the last search
	quiet   float64   // s at the full rate since the last throttle
	repeats int       // cuts in a row that were too shallow
	best    float64   // calls a second that the lane gave, fading with memory
	faded   time.Time // when best was faded last

	next time.Time // the next call
	last time.Time // the last call
	cut  time.Time // throttles of calls up to here tell nothing new
	told time.Time // the last answer that told something
	hush time.Time // the service asked for no call before

	begun  float64 // calls since cut
	noisy  bool    // since the last call began, an answer came that forbids growth
	sooner bool    // the last call was an early second try

	back background
}

// New returns a limiter that begins with a modest rate. Its first call may begin
// within a second: workers that start together do not call together.
func New(cfg Config, now time.Time) *Limiter {
	l := &Limiter{
		rng:     rand.New(rand.NewPCG(cfg.Seed, 0x6c616e65)),
		ceiling: maxRate,
		rate:    startRate, growth: startGrowth,
		last: now, told: now, faded: now, cut: now.Add(-1),
	}
	if cfg.MaxPerMinute > 0 {
		l.ceiling = min(cfg.MaxPerMinute/60, maxRate)
		l.rate = min(l.rate, l.ceiling)
	}
	l.next = now.Add(seconds(l.rng.Float64() / startRate))
	return l
}

// Wait is the time until the next call may begin, at most two minutes; 0 means
// now.
func (l *Limiter) Wait(now time.Time) time.Duration {
	return min(max(0, l.next.Sub(now)), maxWait)
}

// Begin says that a call begins now. more: further jobs wait for this lane, so
// that the rate and not the demand is what binds.
func (l *Limiter) Begin(now time.Time, more bool) {
	late := now.Sub(l.next)
	if late > idleAfter {
		l.fade(now, late-idleAfter)
	}
	eased := l.back.eased(now)
	if interval := 1 / l.rate; more && !eased && !l.noisy && late.Seconds() <= interval && now.Sub(l.told) < unheard {
		dt := min(max(0, now.Sub(l.last).Seconds()), 2*interval)
		l.quiet += dt
		l.rate = min(l.rate*math.Exp(l.speed()*dt), l.ceiling)
	}
	l.sooner = l.sooner && l.noisy
	l.noisy = false
	l.begun++
	l.back.excess = max(0, l.back.excess-l.back.share*(1+allowance))
	if l.clear(now, l.rate, l.begun) {
		l.back.saw(now, l.rate)
	}
	l.last = now
	interval, most := 1/l.rate, catchUp
	if eased {
		interval /= easePart
	}
	if l.rate <= keepsOne {
		most = tightCatchUp
	}
	l.next = now.Add(seconds(interval - min(max(0, late.Seconds()), most, catchUpPart*interval)))
}

// fade forgets what was learned before a time without calls.
func (l *Limiter) fade(now time.Time, idle time.Duration) {
	l.told = now
	if l.rate > startRate {
		l.rate = max(startRate, l.rate*math.Exp2(-idle.Seconds()/idleHalf.Seconds()))
		l.growth = startGrowth
	}
}

// speed is the present growth of the rate's logarithm in 1/s.
func (l *Limiter) speed() float64 {
	p := period(l.rate)
	g := 0.5 / (p * p)
	if late := l.quiet/p - lateAfter*l.back.wide(l.rate); late > 0 {
		if l.rate < slowRate {
			g = max(g, lateGrowth*l.rate)
		}
		doubling := min(lateDoubling*p, max(lateTime, lateCalls/l.rate))
		g = min(stepGrowth, g*math.Exp2(late*p/doubling))
	}
	return min(max(g, l.growth), startGrowth, callGrowth*l.rate)
}

// period is the time in seconds between two throttles that a worker aims at
// while it makes rate calls a second.
func period(rate float64) float64 {
	aim := max(periodCalls/rate, min(basePeriod, periodScale/math.Sqrt(rate)))
	return max(minPeriod, min(aim, maxPeriod))
}

// Accepted says that the service took the call that began then: any answer that
// is not a throttle.
func (l *Limiter) Accepted(now, began time.Time) { l.told = now }

// Lost says that the call that began then ended without telling anything about
// capacity: not reached, cut off, timed out, or 500.
func (l *Limiter) Lost(now, began time.Time) { l.noisy = true }

// Throttled says that the call that began then was answered with 429 or 503.
// retryAfter is the wait that the service asked for, 0 if none; more than two
// minutes are not honoured.
func (l *Limiter) Throttled(now, began time.Time, retryAfter time.Duration) {
	l.told = now
	if began.After(l.cut) {
		l.heed(now, began)
	}
	if retryAfter > 0 {
		// The spread keeps workers that were told the same from coming back together.
		spread := min(0.1*retryAfter.Seconds(), 1/l.rate) * l.rng.Float64()
		if t := now.Add(min(retryAfter, maxWait) + seconds(spread)); t.After(l.hush) {
			l.hush = t
		}
	}
	// Whatever this call was told, an earlier one may have been told to wait for longer.
	if l.hush.After(l.next) {
		l.next = l.hush
	}
}

// heed takes in that a call that began then was throttled. Throttles cut the rate as
// soon as there are more than those that come whatever the rate.
func (l *Limiter) heed(now, began time.Time) {
	age := min(now.Sub(began).Seconds(), maxAge)
	since := l.begun - l.rate*age // calls from the last cut to the one that was throttled
	if l.clear(began, l.rate*math.Exp(-l.speed()*age), since) {
		l.back.throttles++
	}
	l.back.excess++
	if l.back.excess >= 1+l.back.slack(l.rate) {
		l.slow(now, began, age, since)
	}
}

// slow cuts the rate because a call that began then was throttled.
func (l *Limiter) slow(now, began time.Time, age, since float64) {
	speed := l.speed()
	depth := l.depth(speed, since)
	deep, felt := l.back.deep(), depth/2
	if deep && l.back.share > 0 {
		// By so much the rate is now below the quota if the share is none.
		felt = depth * (overshoot - 1) / overshoot
		depth = min(depth+l.back.share, maxCut)
	}
	floor := l.floor(now)
	rate := l.rate * math.Exp(-speed*age-depth)
	l.rate, l.growth = min(max(rate, floor), l.ceiling), speed/2
	if l.repeats >= fallRepeats && speed < min(calm, trackGrowth*l.rate) {
		// The growth whose overshoot is what was cut, halved as after any throttle.
		l.growth = max(l.growth, min(startGrowth, depth*depth/(overshoot*overshoot)/2))
	}
	if rate <= floor {
		l.growth = startGrowth // nothing is known any more
	}
	if since > provenCalls {
		l.best = max(l.best, l.rate)
	}
	l.shift(now, began, speed)
	l.quiet, l.begun, l.noisy = 0, 0, true
	l.cut = now.Add(seconds(min(age, crowd)))
	l.back.excess, l.back.edge = 0, 0
	if deep {
		l.back.edge = l.rate * math.Exp(felt)
	}
}

// depth is by how much the rate's logarithm is cut when it grew at that speed and
// made so many calls since the last cut.
func (l *Limiter) depth(speed, since float64) float64 {
	// Where calls are few, the rate may have passed the quota anywhere between two.
	slack := l.back.slack(l.rate)
	depth := max(overshoot*math.Sqrt(2*(bucketTime+slack/l.rate)*speed), speed/l.rate)
	l.repeats++
	if since > repeatCalls+2*slack {
		l.repeats = 0
	}
	if l.repeats > 0 {
		l.repeats = min(l.repeats, maxRepeats)
		depth = max(depth, repeatCut*float64(int(1)<<l.repeats))
	}
	return min(depth, maxCut)
}

// floor is the slowest rate.
func (l *Limiter) floor(now time.Time) float64 {
	l.best *= math.Exp(-now.Sub(l.faded).Seconds() / memory.Seconds())
	l.faded = now
	return max(minFloor, min(floorShare*l.best, maxFloor))
}

// shift plans the next call after a throttle.
func (l *Limiter) shift(now, began time.Time, speed float64) {
	part := 1.0
	if began.Equal(l.last) { // no later call has begun: this one's slot was not free
		part = minShift + l.rng.Float64()
		if !l.sooner && speed < calm {
			part = retryPart
		}
		l.sooner = !l.sooner
	}
	l.next = l.last.Add(seconds(part / l.rate))
	if l.next.Before(now) {
		l.next = now
	}
}

// Rate is the learned rate in calls a minute.
func (l *Limiter) Rate() float64 { return l.rate * 60 }

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// untouched is what begun counts from after resume: calls enough that the next
// throttle is not taken for a repetition.
const untouched = 1e6

// resume goes on with what another worker has learned. The first call may begin
// then.
func (l *Limiter) resume(rate, growth, quiet float64, now, first time.Time) {
	l.rate = min(max(rate, minFloor), l.ceiling)
	l.growth, l.quiet = growth, quiet
	l.next, l.last, l.told = first, first.Add(-seconds(1/l.rate)), first
	if l.hush.After(l.next) {
		l.next = l.hush
	}
	l.begun, l.repeats, l.noisy, l.sooner = untouched, 0, false, false
	l.cut = now.Add(-1)
	l.best = max(l.best, l.rate)
}

// resumed reports whether no call has begun since resume.
func (l *Limiter) resumed() bool { return l.begun == untouched }
