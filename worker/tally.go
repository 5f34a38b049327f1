package worker

import (
	"sync"

	"github.com/assetmill/assetmill/jobs"
)

// Stats is what a worker has done since it began, for its own progress lines. What became of a submission is derived from
// lineage, never from these.
type Stats struct {
	InFlight   int // messages being handled
	Outcomes   map[jobs.Outcome]int
	Repeated   int // messages of jobs that had already ended
	Retried    int // messages given back
	Throttled  int // answers of 429 and 503
	Unreached  int // calls that were not sent, since the service could not be reached
	TakenOver  int // jobs taken over from workers that did not come back
	Adopted    int // of these, the ones whose image was stored already
	TurnedAway int // jobs that no lane could serve
	Fenced     int // ends discarded because another worker had taken the job over
}

type tally struct {
	mu sync.Mutex
	s  Stats
}

// Stats returns a snapshot. It is safe for concurrent use.
func (w *Worker) Stats() Stats {
	w.tally.mu.Lock()
	defer w.tally.mu.Unlock()
	s := w.tally.s
	s.Outcomes = make(map[jobs.Outcome]int, len(w.tally.s.Outcomes))
	for k, v := range w.tally.s.Outcomes {
		s.Outcomes[k] = v
	}
	return s
}

func (t *tally) begin() { t.change(func(s *Stats) { s.InFlight++ }) }
func (t *tally) end()   { t.change(func(s *Stats) { s.InFlight-- }) }

func (t *tally) ended(o jobs.Outcome) {
	t.change(func(s *Stats) {
		if s.Outcomes == nil {
			s.Outcomes = map[jobs.Outcome]int{}
		}
		s.Outcomes[o]++
	})
}

func (t *tally) change(f func(*Stats)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f(&t.s)
}
