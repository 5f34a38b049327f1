package worker

import (
	"maps"
	"sync"
	"time"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
)

// Stats is what a worker has done since it began, for its own progress lines and metrics. What became of a submission is derived from
// lineage, never from these.
type Stats struct {
	InFlight   int           // messages being handled
	OldestAge  time.Duration // since publication, of the oldest of them
	Unrecorded time.Duration // since its end, of the oldest job among them whose row is not stored yet
	Outcomes   map[jobs.Outcome]int
	Reasons    map[jobs.Reason]int
	Repeated   int // messages of jobs that had already ended
	Retried    int // messages given back
	Throttled  int // answers of 429 and 503
	Unreached  int // calls that were not sent, since the service could not be reached
	Unknown    int // calls whose answer was lost or left behind by a worker that did not come back: they may be paid for
	TakenOver  int // jobs taken over from workers that did not come back
	Adopted    int // jobs whose image was stored already, by such a worker or by a call whose answer was lost
	TurnedAway int // jobs that no lane could serve
	Fenced     int // ends discarded because another worker had taken the job over
	Discarded  int // images discarded because the job had another one already: paid twice
	// Cost is what was spent, by campaign. Beyond the first maxCampaigns, campaigns count as otherCampaigns.
	Cost map[string]jobs.USD
}

const (
	// maxCampaigns bounds the campaigns that a worker tells apart: each is a time series of its own, wherever the metrics are kept. Lineage knows
	// the cost of every campaign.
	maxCampaigns = 100
	// otherCampaigns stands for the campaigns beyond.
	otherCampaigns = "other"
)

// Spent returns the cost over all campaigns.
func (s Stats) Spent() jobs.USD {
	var sum jobs.USD
	for _, cost := range s.Cost {
		sum += cost
	}
	return sum
}

// tally counts.
type tally struct {
	mu   sync.Mutex
	s    Stats               // without what snapshot adds
	held map[*task]time.Time // the messages being handled, and when their jobs ended whose rows are not stored yet
}

// Stats returns a snapshot. It is safe for concurrent use.
func (w *Worker) Stats() Stats { return w.tally.snapshot(time.Now()) }

func (y *tally) snapshot(now time.Time) Stats {
	y.mu.Lock()
	defer y.mu.Unlock()
	s := y.s
	s.Reasons, s.Cost = maps.Clone(y.s.Reasons), maps.Clone(y.s.Cost)
	s.Outcomes = map[jobs.Outcome]int{}
	for reason, n := range s.Reasons {
		s.Outcomes[reason.Outcome()] += n
	}
	s.InFlight = len(y.held)
	for t, ended := range y.held {
		if published := t.delivery.Published; !published.IsZero() {
			s.OldestAge = max(s.OldestAge, now.Sub(published))
		}
		if !ended.IsZero() {
			s.Unrecorded = max(s.Unrecorded, now.Sub(ended))
		}
	}
	return s
}

func (y *tally) begin(t *task) {
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.held == nil {
		y.held = map[*task]time.Time{}
	}
	y.held[t] = time.Time{}
}

func (y *tally) end(t *task) {
	y.mu.Lock()
	defer y.mu.Unlock()
	delete(y.held, t)
}

// ended counts a job's end, which lineage is to be told.
func (y *tally) ended(t *task, reason jobs.Reason) {
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.s.Reasons == nil {
		y.s.Reasons = map[jobs.Reason]int{}
	}
	y.s.Reasons[reason]++
	t.ended = true
	if _, held := y.held[t]; held {
		y.held[t] = time.Now()
	}
}

// stored notes that the row of a job's end is durable.
func (y *tally) stored(t *task) {
	y.mu.Lock()
	defer y.mu.Unlock()
	if _, held := y.held[t]; held {
		y.held[t] = time.Time{}
	}
}

// spent counts a call.
func (y *tally) spent(attempt *schemas.AttemptRow, cost jobs.USD) {
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.s.Cost == nil {
		y.s.Cost = map[string]jobs.USD{}
	}
	if attempt.GetResult() == resultUnknown {
		y.s.Unknown++
	}
	campaign := attempt.GetCampaign()
	if _, known := y.s.Cost[campaign]; !known && len(y.s.Cost) >= maxCampaigns {
		campaign = otherCampaigns
	}
	y.s.Cost[campaign] += cost
}

func (y *tally) change(f func(*Stats)) {
	y.mu.Lock()
	defer y.mu.Unlock()
	f(&y.s)
}
