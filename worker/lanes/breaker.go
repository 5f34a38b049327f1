package lanes

import (
	"math/bits"
	"math/rand/v2"
	"time"
)

// Bounds of a breaker.
const (
	// breakAfter is how many calls in a row must fail before a lane is left alone. Single failures are common under load; ten in a row
	// come from a share of failures at which most tries are wasted.
	breakAfter = 10
	// lostWindow and breakAtLost: when a quarter of the latest calls got no answer, the lane is left alone even though others succeed.
	// Each of them may have cost the price of an image. A lane that loses one call in a hundred breaks by chance once in a billion calls.
	lostWindow  = 32
	breakAtLost = lostWindow / 4
	// firstBreak and lastBreak bound the pause before a broken lane is tried again. It doubles from one failed try to the next. A
	// try that fails is mostly free, and after an outage every second of the pause is lost.
	firstBreak = time.Second
	lastBreak  = 30 * time.Second
	// probePatience is how long one try may go on before another may begin. A call that hangs must not keep a healthy lane closed.
	probePatience = time.Minute
)

// result is how a call ended, for a breaker.
type result int

const (
	unknown result = iota // it was not made, or not by the service's doing
	working               // the service answered, if only to say no
	failing               // it failed or could not be reached
	lost                  // it was sent and no answer came: it may be paid
)

// breaker keeps calls off a lane that fails. It is not safe for concurrent use.
//
// It is our own since no library has this shape. gobreaker's pause has one length. failsafe-go's grows only inside its own executor, which can't
// span a permit's life, and a try that was not made can't be given back. Neither breaks on a row of failures or a share of lost calls, whichever
// comes first.
type breaker struct {
	state   State // Open, Probing or Broken
	row     int   // failures in a row
	history uint32
	pause   time.Duration // the latest
	until   time.Time     // Broken: when it may be tried again; Probing: when another try may begin
	// epoch grows with each change of state. What a call says counts only in the epoch in which it began: thousands of calls that were in
	// flight when the lane broke end later, and say nothing new.
	epoch  int
	jitter *rand.Rand
}

// wait returns how long no call may begin.
func (b *breaker) wait(now time.Time) time.Duration {
	if b.state == Open {
		return 0
	}
	return max(b.until.Sub(now), 0)
}

// begin notes that a call begins, and returns what end needs to know of it.
func (b *breaker) begin(now time.Time) (epoch int) {
	if b.state != Open {
		if b.state == Broken {
			b.state = Probing
			b.epoch++
		}
		b.until = now.Add(probePatience)
	}
	return b.epoch
}

// end notes how a call ended. It reports whether the lane's state has changed.
func (b *breaker) end(epoch int, r result, now time.Time) (changed bool) {
	if epoch != b.epoch {
		return false
	}
	if b.state == Probing {
		switch r {
		case working:
			*b = breaker{epoch: b.epoch + 1, jitter: b.jitter}
		case unknown:
			b.state, b.until = Broken, now
			b.epoch++
		default:
			b.open(now)
		}
		return true
	}
	if r == unknown {
		return false
	}
	b.row++
	b.history <<= 1
	switch r {
	case working:
		b.row = 0
	case lost:
		b.history |= 1
	}
	if b.row < breakAfter && bits.OnesCount32(b.history) < breakAtLost {
		return false
	}
	b.open(now)
	return true
}

// open begins a pause. Half of it is random, so that workers that share a service's trouble do not come back at once.
func (b *breaker) open(now time.Time) {
	b.state, b.row, b.history = Broken, 0, 0
	b.epoch++
	b.pause = min(max(2*b.pause, firstBreak), lastBreak)
	half := b.pause / 2
	b.until = now.Add(half + time.Duration(b.jitter.Int64N(int64(half)+1)))
}
