package pacesim

import (
	"time"

	"github.com/assetmill/assetmill/worker/lanes/pace"
)

// Algorithm is a way to pace the calls of a worker.
type Algorithm struct {
	Name string
	// New makes the state of the worker with that id, which has so many places for jobs.
	New func(id string, places int, seed uint64, now time.Time) Pacer
	// Places is how many places a worker has at least where the scenario does not say.
	Places int
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

// builtFor is how many calls in flight a worker is built for.
const builtFor = 3200

// Ours is package pace: workers that hear of each other and take turns. They have the places that workers have in production.
func Ours() Algorithm {
	return Algorithm{Name: "assetmill", Places: builtFor, New: func(id string, places int, seed uint64, now time.Time) Pacer {
		return sharing{pace.NewSharing(pace.Config{Seed: seed}, "lane", id, places, now)}
	}}
}

// Apart is package pace with workers that do not know of each other.
func Apart() Algorithm {
	return Algorithm{Name: "apart", New: func(_ string, _ int, seed uint64, now time.Time) Pacer {
		return limiter{pace.New(pace.Config{Seed: seed}, now)}
	}}
}

type sharing struct{ *pace.Sharing }

// Ready implements Pacer.
func (s sharing) Ready(now time.Time) (bool, time.Duration) {
	d := s.Wait(now)
	return d == 0, d
}

// Throttled implements Pacer.
func (s sharing) Throttled(now, began time.Time) { s.Sharing.Throttled(now, began, 0) }

type limiter struct{ *pace.Limiter }

// Ready implements Pacer.
func (l limiter) Ready(now time.Time) (bool, time.Duration) {
	d := l.Wait(now)
	return d == 0, d
}

// Throttled implements Pacer.
func (l limiter) Throttled(now, began time.Time) { l.Limiter.Throttled(now, began, 0) }
