package batch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/semaphore"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
	"github.com/assetmill/assetmill/worker"
)

const (
	// DefaultPoll spaces the looks at a Vertex job. It takes minutes at least, hours mostly, and Vertex allows 600 looks a minute of a
	// project.
	DefaultPoll = 30 * time.Second
	// DefaultQueueTime is how long a batch may wait for Vertex to begin. Vertex itself gives up after 72 hours, and has nothing then.
	DefaultQueueTime = 24 * time.Hour
	// stepTime bounds one step. It is far below the longest lease of a message.
	stepTime = 20 * time.Minute
	// stepNote is how old the note of the last step may be before a step that changes nothing writes another. It spares most of the writes of a
	// batch that waits for days, and is short beside what a person takes for a standstill.
	stepNote = 5 * time.Minute
	// freeTime bounds the release of a claim at the end of a step. If that fails, the next step of the same tries again; if there is none here,
	// since the worker stops, others find out that the worker is gone.
	freeTime = 5 * time.Second
	// maxCollections bounds the ranges that a process collects at a time. Two keep network and CPU busy; each has an index of up to 9 MB and
	// Concurrency images in memory.
	maxCollections = 2
)

// RunConfig is what a Runner needs to know. Zero values stand for the defaults.
type RunConfig struct {
	Worker, Version string // of this worker, for lineage
	Catalogue       *jobs.Catalogue
	Poll            time.Duration
	QueueTime       time.Duration // how long Vertex may take to begin, before the batch is given up
	Spill           Then          // where the jobs of a batch go that came to nothing: ThenOnline (the default) or ThenBatch
	RangeBytes      int64
	Concurrency     int // rows of a range that are concluded at a time
	Log             *zap.Logger
}

// Runner runs sealed batches. It is safe for concurrent use.
type Runner struct {
	cfg         RunConfig
	ports       Ports
	collections *semaphore.Weighted
	unclear     sightings
	unswept     atomic.Int64 // bytes of output that were read since garbage was collected

	mu   sync.Mutex
	left map[string]worker.Ticket // claims that could not be released, by what they are of
}

// Ports are a Runner's connections.
type Ports struct {
	Spine   Spine
	Ledger  Ledger
	Vertex  Vertex
	Format  Format
	Files   Files
	Queue   Queue
	Lineage Lineage
}

// NewRunner returns a Runner.
func NewRunner(cfg RunConfig, p Ports) *Runner {
	if cfg.Poll == 0 {
		cfg.Poll = DefaultPoll
	}
	if cfg.QueueTime == 0 {
		cfg.QueueTime = DefaultQueueTime
	}
	if cfg.Spill == "" {
		cfg.Spill = ThenOnline
	}
	if cfg.RangeBytes == 0 {
		cfg.RangeBytes = DefaultRangeBytes
	}
	if cfg.Concurrency == 0 {
		cfg.Concurrency = DefaultConcurrency
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	return &Runner{cfg: cfg, ports: p, collections: semaphore.NewWeighted(maxCollections), left: map[string]worker.Ticket{}}
}

// Handle takes a batch one step further, or collects one of its ranges. It can be cut off at any time by ctx: whoever gets the message next
// goes on from there. This worker must give signs of life all the while.
func (r *Runner) Handle(ctx context.Context, d *jobs.Delivery) (v jobs.Verdict) {
	ctx, cancel := context.WithTimeoutCause(ctx, stepTime, errStepTime)
	defer cancel()
	h := &schemas.BatchHandoff{}
	if err := schemas.Unmarshal(d.Data, h); err != nil || h.GetBatchId() == "" || h.GetGatherer() == "" || h.GetRange() < 0 {
		return jobs.Verdict{Action: jobs.Dead, Reason: jobs.ReasonInvalidMessage, Detail: fmt.Sprintf("no hand-off of a batch: %v", err)}
	}
	log := r.cfg.Log.With(zap.String("batch", h.GetBatchId()), zap.Int32("range", h.GetRange()))
	again := jobs.Verdict{Action: jobs.Retry, Detail: "the batch goes on", After: r.cfg.Poll}
	defer func() {
		if fault := recover(); fault != nil {
			log.Error("panic in a step of a batch", zap.String("panic", fmt.Sprint(fault)), zap.Stack("stack"))
			v = again
		}
	}()
	m, verdict := r.manifest(ctx, h, log)
	if m == nil {
		return verdict
	}
	over, err := false, error(nil)
	if n := int(h.GetRange()); n > 0 {
		over, err = r.collect(ctx, m, n, log)
	} else {
		over, err = r.advance(ctx, m, log)
	}
	switch {
	case err != nil:
		log.Warn("a batch's step failed and will be tried again", zap.Error(err))
		return again
	case !over:
		return again
	}
	return jobs.Verdict{Action: jobs.Ack}
}

var errStepTime = fmt.Errorf("the step took longer than %s", stepTime)

// manifest reads a batch's manifest. Without one, the verdict says what becomes of the hand-off.
func (r *Runner) manifest(ctx context.Context, h *schemas.BatchHandoff, log *zap.Logger) (*Manifest, jobs.Verdict) {
	batch := h.GetBatchId()
	again := jobs.Verdict{Action: jobs.Retry, Detail: "the batch is not sealed yet", After: backPause}
	seal, err := r.ports.Ledger.ReadSeal(ctx, batch)
	if err == nil && !seal.Sealed && !seal.Void {
		seal.Void, err = r.ports.Ledger.VoidIfAbandoned(ctx, batch, h.GetGatherer())
	}
	switch {
	case err != nil:
		log.Warn("a batch's manifest could not be read", zap.Error(err))
		return nil, again
	case seal.Void:
		log.Info("a batch was never sealed; its jobs are in the queue")
		return nil, jobs.Verdict{Action: jobs.Ack}
	case !seal.Sealed:
		return nil, again
	}
	m := &Manifest{}
	if err := json.Unmarshal(seal.Manifest, m); err != nil || m.ID != batch {
		log.Error("a batch's manifest can't be read", zap.Error(err))
		return nil, jobs.Verdict{Action: jobs.Dead, Reason: jobs.ReasonInvalidMessage, Detail: "the batch's manifest can't be read"}
	}
	return m, jobs.Verdict{}
}

// alone does something while no other worker can that asks for the same. It reports false when another is at it.
func (r *Runner) alone(ctx context.Context, id string, do func(worker.Ticket) error) (done bool, err error) {
	if err := r.freeLeft(ctx, id); err != nil {
		return false, err
	}
	standing, err := r.ports.Ledger.Claim(ctx, id, jobs.Digest{})
	switch {
	case err != nil:
		return false, err
	case standing.State == worker.Busy:
		return false, nil
	case standing.State != worker.Granted:
		return false, fmt.Errorf("the ledger has a job by the name of %s", id)
	}
	defer func() {
		free, cancel := context.WithTimeout(context.WithoutCancel(ctx), freeTime)
		defer cancel()
		if e := r.free(free, standing.Ticket); e != nil {
			done, err = false, errors.Join(err, e)
		}
	}()
	err = do(standing.Ticket)
	return err == nil, err
}

// free releases a claim, or keeps it in mind: a claim that a living worker has forgotten is held until the worker ends.
func (r *Runner) free(ctx context.Context, t worker.Ticket) error {
	err := r.ports.Ledger.Release(ctx, t, worker.Spent{})
	if errors.Is(err, worker.ErrFenced) {
		err = nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		delete(r.left, t.JobID)
	} else {
		r.left[t.JobID] = t
	}
	return err
}

// freeLeft releases a claim that could not be released.
func (r *Runner) freeLeft(ctx context.Context, id string) error {
	r.mu.Lock()
	t, left := r.left[id]
	r.mu.Unlock()
	if !left {
		return nil
	}
	return r.free(ctx, t)
}

// advance takes the steps that are due. It reports whether the batch is closed.
func (r *Runner) advance(ctx context.Context, m *Manifest, log *zap.Logger) (closed bool, err error) {
	done, err := r.alone(ctx, m.ID, func(ticket worker.Ticket) error {
		s, err := readState(ctx, r.ports.Files, m.ID)
		if err != nil {
			return err
		}
		if s.Phase != Gathered {
			r.unclear.forget(m.ID)
		}
		b := &run{Runner: r, m: m, state: s, ticket: ticket, log: log}
		err = b.steps(ctx)
		closed = s.Phase == Closed
		return err
	})
	return closed && done, err
}

// run is one step's view of a batch.
type run struct {
	*Runner
	m      *Manifest
	state  *State
	ticket worker.Ticket
	log    *zap.Logger
}

// steps goes as far as is possible without waiting, and tells lineage of each step.
func (b *run) steps(ctx context.Context) error {
	if err := b.noteStep(ctx); err != nil {
		return err
	}
	if err := b.tell(ctx); err != nil {
		return err
	}
	for {
		before := b.state.Phase
		if err := b.step(ctx); err != nil {
			return err
		}
		if err := b.tell(ctx); err != nil {
			return err
		}
		if b.state.Phase == before {
			return nil
		}
	}
}

func (b *run) step(ctx context.Context) error {
	switch b.state.Phase {
	case Gathered:
		return b.create(ctx)
	case Running:
		return b.watch(ctx)
	case Collecting:
		return b.gatherRanges(ctx)
	case Reconciling:
		return b.reconcile(ctx)
	case Closed:
		return nil
	default:
		return fmt.Errorf("the batch's phase %q is unknown: a newer assetmill wrote it?", b.state.Phase)
	}
}

// noteStep notes that a worker is at it, also when the step will find nothing new, or fails: otherwise nobody could tell a batch that waits from
// one whose hand-off is lost.
func (b *run) noteStep(ctx context.Context) error {
	if b.state.Phase == Closed || time.Since(b.state.Stepped).Abs() < stepNote {
		return nil
	}
	return b.save(ctx)
}

func (b *run) save(ctx context.Context) error {
	b.state.Stepped = time.Now().UTC()
	return b.state.save(ctx, b.ports.Files, b.m.ID)
}

// sightings are what this worker has seen of creates whose Vertex jobs nobody has seen. How long ago they were is measured by this worker's
// own clock, from when it first saw that they were: clocks of workers may be minutes apart. The zero value is ready.
type sightings struct {
	mu   sync.Mutex
	seen map[string]sighting // by batch
}

type sighting struct {
	creates int
	since   time.Time
}

// age returns for how long this worker has known of that many creates.
func (s *sightings) age(batch string, creates int) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := s.seen[batch]
	if seen.creates != creates {
		if s.seen == nil {
			s.seen = map[string]sighting{}
		}
		seen = sighting{creates, time.Now()}
		s.seen[batch] = seen
	}
	return time.Since(seen.since)
}

// forget drops what is known of a batch.
func (s *sightings) forget(batch string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.seen, batch)
}
