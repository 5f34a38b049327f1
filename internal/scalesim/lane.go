package scalesim

import (
	"math"
	"math/rand/v2"
)

const (
	// quantiles is how finely the lengths of calls are cut.
	quantiles = 4096
	// throttlesPerMinute is how often each worker is throttled while the quota binds: that is how it learns of changes. docs/pacing.md has 3 % with
	// 150 calls a minute for each worker, 0.7 % with 750 and 15 % with 30, which is five a minute in each case.
	throttlesPerMinute = 5
	// startPerMinute is the rate at which a worker that knows nothing of a lane begins.
	startPerMinute = 60
	// floorPerMinute is the rate at which a worker asks a lane that takes nothing.
	floorPerMinute = 6
	// climb and fall are the seconds in which the learned rate comes nearer to what the lane takes, to a third of the distance. Pacers
	// are meant to settle within a minute, three times that.
	climb, fall = 20, 10
	million     = 1_000_000
)

// lane is a lane at work.
type lane struct {
	spec      *Lane
	lengths   [quantiles]int // of calls, in seconds
	quota     int            // calls a minute, now
	next      int            // index of the next step of the quota
	learned   int            // thousandths of calls a minute that all workers together begin at most
	budget    int            // sixty-thousandths of calls that may begin
	allowance int            // sixtieths of calls that the service takes
	throttles windowSum
	attempts  windowSum
	begun     int // calls that were taken
	again     int // of these, those that end without an image
}

func newLane(spec *Lane) *lane {
	l := &lane{spec: spec}
	// A power of an even draw between the bounds has its mean in the right place: few calls take long.
	c := spec.Calls
	span := (c.Longest - c.Shortest).Seconds()
	power := span/(c.Mean-c.Shortest).Seconds() - 1
	for i := range l.lengths {
		at := (float64(i) + 0.5) / quantiles
		l.lengths[i] = int(math.Round(c.Shortest.Seconds() + span*math.Pow(at, power)))
	}
	return l
}

// length draws how long a call takes, and whether it is slower than usual calls are.
func (l *lane) length(rng *rand.Rand) (seconds int, slow bool) {
	c := &l.spec.Calls
	if c.Slow > 0 && rng.IntN(million) < c.Slow {
		from, to := secs(c.Longest), secs(c.SlowUpTo)
		return from + 1 + rng.IntN(to-from), true
	}
	return l.lengths[rng.IntN(quantiles)], false
}

// tick begins a second. workers is how many there are to call.
func (l *lane) tick(now, workers int) {
	for l.next < len(l.spec.Quota) && secs(l.spec.Quota[l.next].At) <= now {
		l.quota = l.spec.Quota[l.next].PerMinute
		l.next++
	}
	l.throttles.tick(now)
	l.attempts.tick(now)
	l.learned = min(max(l.learned, workers*startPerMinute*1000*boolean(l.learned == 0)), math.MaxInt32)
	if workers == 0 {
		l.learned = 0 // whoever starts next knows nothing
	}
	rate := l.learned
	if l.spec.Ceiling > 0 {
		rate = min(rate, l.spec.Ceiling*workers*1000)
	}
	// What is not used in a second is lost, on both sides, but for the fractions.
	l.budget = l.budget%60_000 + rate
	l.allowance = l.allowance%60 + l.quota
}

// room is how many calls the workers may begin in this second.
func (l *lane) room() int { return l.budget / 60_000 }

// attempt begins calls, at most room(), and returns how many are taken. The others are throttled. more says that further jobs wait, so that
// the rate is what binds.
func (l *lane) attempt(n, workers int, more bool) int {
	taken := min(n, l.allowance/60)
	l.budget -= n * 60_000
	l.allowance -= taken * 60
	l.attempts.add(n)
	l.throttles.add(n - taken)
	takes := max(l.quota+throttlesPerMinute*workers, floorPerMinute*workers) * 1000
	switch {
	case l.learned > takes && n > taken:
		l.learned -= (l.learned - takes + fall - 1) / fall
	case l.learned < takes && more:
		l.learned += (takes - l.learned + climb - 1) / climb
	}
	return taken
}

func boolean(b bool) int {
	if b {
		return 1
	}
	return 0
}

// windowSum is a sum over the last five minutes.
type windowSum struct {
	slots [300]int // one for each second
	now   int
	sum   int
}

func (m *windowSum) tick(now int) {
	m.now = now % len(m.slots)
	m.sum -= m.slots[m.now]
	m.slots[m.now] = 0
}

func (m *windowSum) add(n int) {
	m.slots[m.now] += n
	m.sum += n
}
