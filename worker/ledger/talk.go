package ledger

import (
	"context"
	"sync"
	"time"
)

// Neighbours is whoever has something to tell the other workers. What it tells goes as metadata of the sign of life, and what the others
// tell comes with the look at them, so that it costs not one operation more.
type Neighbours interface {
	// Tell returns what to tell, at most 7 KiB. Empty: nothing. It is called for each sign of life.
	Tell() string
	// Hear takes in what all workers told with their latest signs of life, this one included. clock is Cloud Storage's time at the local
	// time now, to about a tenth of a second. It is called for each look that succeeded, once that is known.
	Hear(now, clock time.Time, said []Said)
}

// Said is what a worker told, and when, by Cloud Storage's clock. It is an alias of a plain type, so that whoever implements [Neighbours]
// need not know this package.
type Said = struct {
	Worker string
	At     time.Time
	Text   string
}

// Share carries what the workers tell each other.
func Share(n Neighbours) Option { return func(l *Ledger) { l.neighbours = n } }

// tellKey is the metadata key under which workers tell.
const tellKey = "assetmill-says"

// clockBeats is how many beats the idea of Cloud Storage's clock rests on: a minute's. The one that took least time knows best.
const clockBeats = 12

// clock knows how far Cloud Storage's clock is from this process's. The workers' own clocks may be minutes apart, but all that is written
// is stamped by that one. It is safe for concurrent use.
type clock struct {
	mu     sync.Mutex
	points [clockBeats]point
	next   int
}

// point is a write: Cloud Storage's time of it, and between which local times it happened. The zero value is none.
type point struct {
	began time.Time
	took  time.Duration
	stamp time.Time
}

func (c *clock) add(began, ended, stamp time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.points[c.next] = point{began, ended.Sub(began), stamp}
	c.next = (c.next + 1) % clockBeats
}

// at returns Cloud Storage's time at a local time, if it is known. Local times are only subtracted from each other, so that it does not
// matter when somebody sets this machine's clock.
func (c *clock) at(local time.Time) (stamp time.Time, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var best *point
	for i := range c.points {
		if p := &c.points[i]; !p.stamp.IsZero() && (best == nil || p.took < best.took) {
			best = p
		}
	}
	if best == nil {
		return time.Time{}, false
	}
	return best.stamp.Add(local.Sub(best.began.Add(best.took / 2))), true
}

// awaitClock waits for the first sign of life, which tells Cloud Storage's time: what is heard before is of no use.
func (l *Ledger) awaitClock(ctx context.Context) {
	if l.neighbours == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, beatTime)
	defer cancel()
	_, _ = l.pulse.await(ctx) // without it, looks begin all the same
}

// tell returns what this worker tells, as the metadata of a sign of life.
func (l *Ledger) tell() map[string]string {
	if l.neighbours == nil {
		return nil
	}
	if text := l.neighbours.Tell(); text != "" {
		return map[string]string{tellKey: text}
	}
	return nil
}

// hear passes on what a look at the others found.
func (l *Ledger) hear(said []Said) {
	if l.neighbours == nil {
		return
	}
	now := time.Now()
	if stamp, known := l.clock.at(now); known {
		l.neighbours.Hear(now, stamp, said)
	}
}
