package lanes

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/assetmill/assetmill/worker/lanes/pace"
)

const (
	// maxTold bounds the lanes that a worker tells of. One lane takes some 300 bytes, and Cloud Storage keeps 8 KiB of metadata with an
	// object.
	maxTold = 16
	// maxToldBytes bounds what is told, and what is read of others.
	maxToldBytes = 7 << 10
	// maxPeers bounds the workers that are heard.
	maxPeers = 1000
	// toldFor is how long after its last call a lane is told of that nobody waits for.
	toldFor = 5 * time.Minute
	// toldVersion is that of what is told. Workers that tell in another way are not heard, nor counted.
	toldVersion = 1
)

// Said is what a worker told with a sign of life, and when, by the clock of whoever keeps it. It is an alias of a plain type, so that the
// package that carries it and this one need not know each other.
type Said = struct {
	Worker string
	At     time.Time
	Text   string
}

// told is what is told of all lanes.
type told struct {
	Version int                    `json:"v"`
	Lanes   map[string]pace.Report `json:"l"`
}

// sharer is a pacer that shares its lane with the other workers.
type sharer interface {
	Report(now time.Time, waiting bool) pace.Report
	Hear(now time.Time, clock pace.Moment, all []pace.Peer)
}

// key is what all workers call a lane: by what makes it a lane, whatever its name in their files.
func (l *LaneConfig) key() string {
	q := l.quota()
	sum := sha256.Sum256(fmt.Appendf(nil, "%q", []string{q.Project, q.Location, q.Model, q.Tier, q.Host, q.Endpoint}))
	return hex.EncodeToString(sum[:6])
}

// Tell returns what this worker tells the others of its lanes, in so far as it uses them. It is to be called with each sign of life, every
// few seconds. Empty: nothing.
func (s *Set) Tell() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	type line struct {
		key     string
		report  pace.Report
		waiting bool
		last    time.Time
	}
	var lines []line
	for _, l := range s.lanes {
		p, ok := l.pacer.(sharer)
		if !ok {
			continue
		}
		waiting := l.waitedFor(now)
		if r := p.Report(now, waiting); waiting || now.Sub(l.called) < toldFor {
			lines = append(lines, line{l.key, r, waiting, l.called})
		}
	}
	slices.SortStableFunc(lines, func(a, b line) int { return b.last.Compare(a.last) })
	t := told{toldVersion, map[string]pace.Report{}}
	for _, l := range lines[:min(len(lines), maxTold)] {
		t.Lanes[l.key] = l.report
	}
	text, err := json.Marshal(t)
	if err != nil || len(t.Lanes) == 0 || len(text) > maxToldBytes {
		return "" // as if it did not use them: the others go on without it
	}
	return string(text)
}

// waitedFor reports whether jobs wait for nothing but the lane's pace.
func (l *lane) waitedFor(now time.Time) bool {
	if len(l.groups) == 0 || l.shut != nil || l.breaker.state != Open || l.inFlight >= l.max {
		return false
	}
	w, _, _ := l.candidate(now)
	return w != nil
}

// Hear takes in what the workers told with their latest signs of life, this worker's own included. clock is the time by the clock that gave
// the times of what was said, at the local time now. What can't be understood is left out.
func (s *Set) Hear(now, clock time.Time, said []Said) {
	heard := map[string][]pace.Peer{}
	at := pace.MomentOf(clock)
	for _, w := range said[:min(len(said), maxPeers)] {
		var t told
		if len(w.Text) > maxToldBytes || json.Unmarshal([]byte(w.Text), &t) != nil || t.Version != toldVersion || len(t.Lanes) > maxTold {
			continue
		}
		for key, r := range t.Lanes {
			if r.Valid(at) {
				heard[key] = append(heard[key], pace.Peer{ID: w.Worker, At: pace.MomentOf(w.At), Report: r})
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	present := time.Now() // not before what the pacers were told last
	at = pace.MomentOf(clock.Add(present.Sub(now)))
	for _, l := range s.lanes {
		if p, ok := l.pacer.(sharer); ok {
			p.Hear(present, at, heard[l.key])
		}
	}
	s.dispatch(present)
}
