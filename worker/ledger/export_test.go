package ledger

import "time"

// AgeOf returns how old the remembered answer is, 0 for none.
func AgeOf(c *Controls, submission string) time.Duration {
	a, ok := c.known.Get(submission)
	if !ok {
		return 0
	}
	return time.Since(a.at)
}

// Backdate makes the remembered answer older.
func Backdate(c *Controls, submission string, by time.Duration) {
	a, _ := c.known.Get(submission)
	a.at = a.at.Add(-by)
	c.known.Add(submission, a)
}

// Look is what one look at the others found of a worker: at which second it began, how many it took, and which generation.
type Look struct {
	At         int
	Took       int
	Generation int64
}

// TakenForDead reports whether a worker is taken for dead after those looks.
func TakenForDead(looks []Look) bool {
	var p peers
	start := time.Now()
	for _, l := range looks {
		began := start.Add(time.Duration(l.At) * time.Second)
		p.look(began, began.Add(time.Duration(l.Took)*time.Second), map[string]int64{"w": l.Generation})
	}
	_, silent := p.silent("w")
	return silent
}

// MarkSilent makes the ledger's worker believe that it has watched another for an hour, always at that generation.
func MarkSilent(l *Ledger, id string, generation int64) {
	now := time.Now()
	l.peers.mu.Lock()
	defer l.peers.mu.Unlock()
	l.peers.looked = now
	l.peers.seen = map[string]sighting{id: {generation, now.Add(-time.Hour)}}
}

// Beaten makes the ledger's worker believe that it has just given a sign of life.
func Beaten(l *Ledger) { l.pulse.beat(time.Now()) }

// Gap makes the ledger's worker believe that its last sign of life is so much older.
func Gap(l *Ledger, by time.Duration) {
	l.pulse.mu.Lock()
	defer l.pulse.mu.Unlock()
	l.pulse.last = l.pulse.last.Add(-by)
}

// Write is one that Cloud Storage stamped.
type Write struct{ Began, Ended, Stamp time.Time }

// Ahead returns how far ahead Cloud Storage's clock is taken to be at a local time after those writes.
func Ahead(writes []Write, local time.Time) time.Duration {
	var c clock
	for _, w := range writes {
		c.add(w.Began, w.Ended, w.Stamp)
	}
	stamp, known := c.at(local)
	if !known {
		return 0
	}
	return stamp.Sub(local)
}
