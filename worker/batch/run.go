package batch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
	"github.com/assetmill/assetmill/worker"
)

const (
	// DefaultPoll spaces the looks at a Vertex job. It takes minutes at least, hours mostly, and Vertex allows 600 looks a minute of a
	// project.
	DefaultPoll = 30 * time.Second
	// DefaultQueueTime is how long a Vertex job may wait in Vertex's queue. Vertex itself gives up after 72 hours, and has nothing then.
	DefaultQueueTime = 24 * time.Hour
	// appearTime is how long after a create whose answer is unclear its job may still turn up in a list. A create takes seconds; a list may
	// lag by some more; a worker may have been frozen between its last look and its create.
	appearTime = 10 * time.Minute
	// maxCreates bounds the creates of one batch. What three tries did not create will not be created.
	maxCreates = 3
	// stepTime bounds one step. It is far below the longest lease of a message.
	stepTime = 20 * time.Minute
)

// RunConfig is what a Runner needs to know. Zero times stand for the defaults.
type RunConfig struct {
	Worker, Version string // of this worker, for lineage
	Catalogue       *jobs.Catalogue
	Poll            time.Duration
	QueueTime       time.Duration // in Vertex's queue, before the batch is given up
	Spill           Then          // where the jobs of a batch go that was given up: ThenOnline or ThenBatch
	RangeBytes      int64
	Concurrency     int // rows of a range that are concluded at a time
	Log             *zap.Logger
}

// Runner runs sealed batches. Its Handle is the handler of the queue of hand-offs. It is safe for concurrent use.
type Runner struct {
	cfg     RunConfig
	spine   Spine
	ledger  Ledger
	vertex  Vertex
	format  Format
	files   Files
	queue   Queue
	lineage Lineage
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
	return &Runner{cfg: cfg, spine: p.Spine, ledger: p.Ledger, vertex: p.Vertex, format: p.Format, files: p.Files, queue: p.Queue, lineage: p.Lineage}
}

// Handle takes a batch one step further, or collects one of its ranges.
func (r *Runner) Handle(ctx context.Context, d *jobs.Delivery) jobs.Verdict {
	ctx, cancel := context.WithTimeout(ctx, stepTime)
	defer cancel()
	h := &schemas.BatchHandoff{}
	if err := schemas.Unmarshal(d.Data, h); err != nil || h.GetBatchId() == "" || h.GetRange() < 0 {
		return jobs.Verdict{Action: jobs.Dead, Reason: jobs.ReasonInvalidMessage, Detail: fmt.Sprintf("no hand-off of a batch: %v", err)}
	}
	log := r.cfg.Log.With(zap.String("batch", h.GetBatchId()))
	m, verdict := r.manifest(ctx, h, log)
	if m == nil {
		return verdict
	}
	var err error
	over := false
	if h.GetRange() > 0 {
		over, err = r.collect(ctx, m, int(h.GetRange()))
	} else {
		over, err = r.held(ctx, m, log)
	}
	switch {
	case over && err == nil:
		return jobs.Verdict{Action: jobs.Ack}
	case err != nil:
		log.Warn("a batch's step failed and will be tried again", zap.Int32("range", h.GetRange()), zap.Error(err))
	}
	return jobs.Verdict{Action: jobs.Retry, Detail: "the batch goes on", After: r.cfg.Poll}
}

// manifest reads a batch's manifest. Without one, the verdict says what becomes of the hand-off.
func (r *Runner) manifest(ctx context.Context, h *schemas.BatchHandoff, log *zap.Logger) (*Manifest, jobs.Verdict) {
	batch := h.GetBatchId()
	again := jobs.Verdict{Action: jobs.Retry, Detail: "the batch is not sealed yet", After: backPause}
	seal, err := r.ledger.ReadSeal(ctx, batch)
	if err == nil && !seal.Sealed && !seal.Void {
		seal.Void, err = r.ledger.VoidIfAbandoned(ctx, batch, h.GetGatherer())
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

// errBusy says that another worker has the batch.
var errBusy = errors.New("another worker has the batch")

// held takes the step that is due while nobody else can. It reports whether the batch is closed.
func (r *Runner) held(ctx context.Context, m *Manifest, log *zap.Logger) (closed bool, err error) {
	standing, err := r.ledger.Claim(ctx, m.ID, jobs.Digest{})
	switch {
	case err != nil:
		return false, err
	case standing.State != worker.Granted:
		return false, nil // another worker is at it
	}
	defer func() {
		free := context.WithoutCancel(ctx)
		if e := r.ledger.Release(free, standing.Ticket, worker.Spent{}); e != nil && !errors.Is(e, worker.ErrFenced) {
			err = errors.Join(err, e)
		}
	}()
	s, err := readState(ctx, r.files, m.ID)
	if err != nil {
		return false, err
	}
	b := &run{Runner: r, m: m, state: s, ticket: standing.Ticket, log: log}
	err = b.steps(ctx)
	return s.Phase == Closed && err == nil, err
}

// run is one step's view of a batch.
type run struct {
	*Runner
	m      *Manifest
	state  *State
	ticket worker.Ticket
	log    *zap.Logger
}

// steps goes as far as is possible without waiting.
func (b *run) steps(ctx context.Context) error {
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
		return b.intend(ctx)
	case Creating:
		return b.create(ctx)
	case Running:
		return b.watch(ctx)
	case Collecting:
		return b.reconcile(ctx)
	case Closed:
		return nil
	default:
		return fmt.Errorf("the batch's phase %q is unknown: a newer assetmill wrote it?", b.state.Phase)
	}
}

func (b *run) save(ctx context.Context) error { return b.state.save(ctx, b.files, b.m.ID) }

// intend writes down that a Vertex job is about to be created, before it is.
func (b *run) intend(ctx context.Context) error {
	wish, err := b.wish(ctx)
	if err != nil {
		return err
	}
	if wish != nil { // cancelled before it cost anything
		b.state.Cancelled, b.state.Then = "asked for", wish.Then
		return b.startCollecting(ctx, nil)
	}
	b.state.Phase = Creating
	return b.save(ctx)
}

// create creates the Vertex job, once. A job that is found by its label is the batch's, whoever created it.
func (b *run) create(ctx context.Context) error {
	found, err := b.vertex.Find(ctx, b.m.Lane, b.m.ID)
	if err != nil {
		return fmt.Errorf("look for the batch's job: %w", err)
	}
	if len(found) > 0 {
		return b.adopt(ctx, found)
	}
	if at := b.state.CreatedAt; at != nil && time.Since(*at) < appearTime {
		return nil // it may still turn up
	}
	if b.state.Creates >= maxCreates {
		b.state.Detail = fmt.Sprintf("Vertex created no job in %d tries", b.state.Creates)
		return b.fail(ctx)
	}
	now := time.Now().UTC()
	b.state.Creates++
	b.state.CreatedAt = &now
	if err := b.save(ctx); err != nil {
		return err
	}
	if err := b.ledger.Confirm(ctx, b.ticket); err != nil {
		return err
	}
	job, err := b.vertex.Create(ctx, worker.BatchRequest{
		ID: b.m.ID, Lane: b.m.Lane, Input: b.files.URI(inputName(b.m.ID)), OutputPrefix: b.files.URI(outputDir(b.m.ID)),
	})
	if err != nil {
		return b.refused(ctx, err)
	}
	b.log.Info("a batch's job is created", zap.String("job", job.Name), zap.Int("jobs", b.m.Rows))
	return b.adopt(ctx, []worker.VertexBatch{job})
}

// refused decides what an error of a create means.
func (b *run) refused(ctx context.Context, err error) error {
	var ce *worker.CallError
	if !errors.As(err, &ce) {
		return err
	}
	switch ce.Kind {
	case worker.Rejected, worker.Denied:
		b.state.Detail = "Vertex refused the batch: " + ce.Error()
		b.log.Error("Vertex refused a batch; its jobs go on as its policy says", zap.Error(ce), zap.String("then", string(b.cfg.Spill)))
		return b.fail(ctx)
	case worker.Unanswered, worker.Failing:
		b.log.Warn("nobody knows whether a batch's job was created; it is looked for", zap.Error(ce))
		return nil
	default: // certainly not created: the next step may try again at once
		b.state.CreatedAt = nil
		b.state.Creates--
		return errors.Join(ce, b.save(ctx))
	}
}

// fail ends a batch for which Vertex has no job.
func (b *run) fail(ctx context.Context) error {
	b.state.Reason, b.state.Then = "failed", b.cfg.Spill
	return b.startCollecting(ctx, nil)
}

// adopt takes the first job as the batch's, and has the others cancelled: they would cost the same again.
func (b *run) adopt(ctx context.Context, found []worker.VertexBatch) error {
	b.state.Job, b.state.Phase = found[0].Name, Running
	b.see(found[0])
	for _, extra := range found[1:] {
		b.log.Error("a batch has more than one Vertex job; the later one is cancelled", zap.String("job", found[0].Name), zap.String("later", extra.Name))
		if err := b.vertex.Cancel(ctx, b.m.Lane, extra.Name); err != nil {
			return err
		}
		b.state.Surplus = append(b.state.Surplus, extra.Name)
	}
	return b.save(ctx)
}

func (b *run) see(job worker.VertexBatch) {
	b.state.JobState = string(job.State)
	b.state.Queued, b.state.Started, b.state.Ended = job.Created, job.Started, job.Ended
	if job.OutputDir != "" {
		b.state.Output = job.OutputDir
	}
}

// watch looks at the Vertex job, and gives it up when its time in the queue is over or its owner wants its end.
func (b *run) watch(ctx context.Context) error {
	job, err := b.vertex.Get(ctx, b.m.Lane, b.state.Job)
	if err != nil {
		return fmt.Errorf("look at %s: %w", b.state.Job, err)
	}
	changed := string(job.State) != b.state.JobState
	b.see(job)
	if job.State.Terminal() {
		b.ended(job)
		return b.startCollecting(ctx, &job)
	}
	why, then, err := b.giveUp(ctx, job)
	if err != nil {
		return err
	}
	if why != "" && b.state.Cancelled == "" {
		b.log.Warn("a batch's job is cancelled", zap.String("job", job.Name), zap.String("why", why), zap.String("then", string(then)))
		// Written first: a job that is cancelled for no known reason would be taken for somebody else's doing.
		b.state.Cancelled, b.state.Then, changed = why, then, true
		if err := b.save(ctx); err != nil {
			return err
		}
	}
	if b.state.Cancelled != "" {
		return b.vertex.Cancel(ctx, b.m.Lane, job.Name) // asking again does no harm
	}
	if changed {
		return b.save(ctx)
	}
	return nil
}

// giveUp says why a job that goes on is to be cancelled, if it is, and what becomes of its jobs then.
func (b *run) giveUp(ctx context.Context, job worker.VertexBatch) (why string, then Then, _ error) {
	wish, err := b.wish(ctx)
	switch {
	case err != nil:
		return "", "", err
	case wish != nil:
		return "asked for", wish.Then, nil
	case (job.State == worker.BatchPending || job.State == worker.BatchQueued) && !job.Created.IsZero() && time.Since(job.Created) > b.cfg.QueueTime:
		return fmt.Sprintf("%s in Vertex's queue", b.cfg.QueueTime), b.cfg.Spill, nil
	default:
		return "", "", nil
	}
}

// ended notes how the Vertex job ended, and what becomes of rows that it did not make.
func (b *run) ended(job worker.VertexBatch) {
	s := b.state
	s.Detail = job.Error
	switch {
	case job.State == worker.BatchSucceeded:
		s.Reason, s.Then = "complete", ThenBatch
	case job.State == worker.BatchPartly:
		s.Reason, s.Then = "partial", ThenBatch
	case job.State == worker.BatchExpired:
		s.Reason, s.Then = "expired", b.cfg.Spill
	case job.State == worker.BatchCancelled && s.Cancelled == "asked for":
		s.Reason = "cancelled"
	case job.State == worker.BatchCancelled && s.Cancelled != "":
		s.Reason = "stuck"
	case job.State == worker.BatchCancelled:
		// By somebody with access to the project. The jobs are not cancelled: nobody asked for that.
		s.Reason, s.Then = "cancelled", b.cfg.Spill
	default:
		s.Reason, s.Then = "failed", b.cfg.Spill
	}
}

// Wish is what an owner wants of a batch.
type Wish struct {
	Then Then `json:"then"`
}

// wish returns what the owner wants, if anything.
func (b *run) wish(ctx context.Context) (*Wish, error) {
	data, generation, err := b.files.Read(ctx, cancelName(b.m.ID))
	if err != nil || generation == 0 {
		return nil, err
	}
	w := &Wish{}
	if err := json.Unmarshal(data, w); err != nil {
		return nil, fmt.Errorf("read the wish to cancel: %w", err)
	}
	return w, nil
}
