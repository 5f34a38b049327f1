package pacesim

import (
	"time"

	"github.com/assetmill/assetmill/worker/lanes/pace"
)

// Algorithm is a way to pace the calls of a worker.
type Algorithm struct {
	Name string
	// New makes the state of one worker, which has so many places for jobs.
	New func(places int, seed uint64, now time.Time) Pacer
	// Backoff lets each throttled job wait by itself before its next attempt, as
	// Google advises: 1 s, doubled up to 60 s, with jitter. Without it the job is
	// ready again at once and the algorithm alone decides when the next call begins.
	Backoff bool
}

// Pacer is what an algorithm keeps for one worker.
type Pacer interface {
	// Ready reports whether a call may begin now, and if not, when to ask again.
	// 0: after the next answer.
	Ready(now time.Time) (ok bool, again time.Duration)
	// Begin says that a call begins. more: further jobs wait.
	Begin(now time.Time, more bool)
	Accepted(now, began time.Time)
	Throttled(now, began time.Time)
}

// Rejecter is a pacer that turns single attempts away, as the SRE throttle does.
type Rejecter interface {
	Reject(now time.Time) bool
}

// Ours is the algorithm of package pace.
func Ours() Algorithm {
	return Algorithm{Name: "assetmill", New: func(_ int, seed uint64, now time.Time) Pacer {
		return ours{pace.New(pace.Config{Seed: seed}, now)}
	}}
}

type ours struct{ *pace.Limiter }

func (o ours) Ready(now time.Time) (bool, time.Duration) {
	d := o.Wait(now)
	return d == 0, d
}

func (o ours) Throttled(now, began time.Time) { o.Limiter.Throttled(now, began, 0) }
