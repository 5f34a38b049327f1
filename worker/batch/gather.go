package batch

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/semaphore"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/worker"
)

// Bounds of a batch. The hard ones are Vertex's.
const (
	// HardRows and HardBytes are what Vertex takes in one job: 200,000 requests, and an input file of 1 GB.
	HardRows  = 200_000
	HardBytes = 1_000_000_000
	// DefaultRows bounds the jobs of a batch that a worker gathers: each holds a message and a goroutine until the batch is sealed.
	DefaultRows = 25_000
	// DefaultBytes leaves room for the jobs that are being claimed when it is reached.
	DefaultBytes = HardBytes - maxClaims*maxLine
	// DefaultAge is how long the first job of a batch waits for others. Batches take hours, and few large ones are served better than many
	// small ones.
	DefaultAge = 10 * time.Minute
	// DefaultIdle is how long a batch waits for one more job. A submission's jobs come within seconds of each other.
	DefaultIdle = time.Minute
)

const (
	// maxClaims bounds the claims that are made at a time: each is a small write to Cloud Storage.
	maxClaims = 256
	// sealTime bounds sealing. A gigabyte is written in a minute or two; beyond this the storage is as good as down, and the jobs go back.
	sealTime = 10 * time.Minute
	// fewRows is what is not worth a batch when the worker stops: the jobs go back, and another worker gathers them among more.
	fewRows = 100
	// backPause spaces the deliveries of a job whose batch came to nothing, or that another batch holds.
	backPause = 10 * time.Second
)

// GatherConfig is what a Gatherer needs to know. Zero bounds stand for the defaults.
type GatherConfig struct {
	Worker string // the id of this worker, as in the ledger
	Rows   int    // of one batch, at most HardRows
	Bytes  int64  // of one batch's input, at most DefaultBytes
	Age    time.Duration
	Idle   time.Duration
	// Lane returns the lane that serves batches of a model and data region. The error wraps worker.ErrNoLane.
	Lane func(model, region string) (worker.Lane, error)
	Log  *zap.Logger
}

// Gatherer makes batches of the messages that it is handed. Its Handle is the handler of the queue of batch jobs. It is safe for
// concurrent use.
type Gatherer struct {
	cfg    GatherConfig
	spine  Spine
	ledger Ledger
	files  Files
	queue  Queue
	format Format
	claims *semaphore.Weighted

	mu   sync.Mutex
	open map[key]*gathering
	stop bool // no batch stays open any more
	work sync.WaitGroup
}

// key is what the jobs of a batch have in common.
type key struct{ model, region string }

// gathering is a batch that is being gathered. The Gatherer's lock guards it until it is closed; then it does not change.
type gathering struct {
	id     string
	lane   worker.Lane
	region string
	taken  int            // places given to jobs, some of which may not come
	coming sync.WaitGroup // jobs that have a place and are being claimed
	rows   []*gathered
	bytes  int64
	closed bool // gives no place any more
	age    *time.Timer
	idle   *time.Timer
	done   chan struct{} // closed when fate is known
	fate   error         // nil: sealed
}

// gathered is a job of a batch.
type gathered struct {
	*worker.Admitted
	hash [32]byte // of its request
}

// NewGatherer returns a Gatherer. Close it when no message is handled any more.
func NewGatherer(cfg GatherConfig, s Spine, l Ledger, f Files, q Queue, format Format) *Gatherer {
	if cfg.Rows == 0 {
		cfg.Rows = DefaultRows
	}
	cfg.Rows = min(cfg.Rows, HardRows)
	if cfg.Bytes == 0 {
		cfg.Bytes = DefaultBytes
	}
	if cfg.Age == 0 {
		cfg.Age = DefaultAge
	}
	if cfg.Idle == 0 {
		cfg.Idle = DefaultIdle
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	return &Gatherer{
		cfg: cfg, spine: s, ledger: l, files: f, queue: q, format: format, claims: semaphore.NewWeighted(maxClaims), open: map[key]*gathering{},
	}
}

// errNotHere says that a job can't be gathered by this worker.
var errNotHere = errors.New("its data region is not where this worker's batches are kept")

// Handle takes a message into the open batch of its kind, and returns when the batch is sealed, or came to nothing.
func (g *Gatherer) Handle(ctx context.Context, d *jobs.Delivery) jobs.Verdict {
	if err := g.claims.Acquire(ctx, 1); err != nil {
		return jobs.Verdict{Action: jobs.Retry, Detail: "the worker is stopping"}
	}
	var batch *gathering
	var laneless error
	admitted, verdict := g.spine.Admit(ctx, d, func(ctx context.Context, j *jobs.Job) (worker.Standing, error) {
		if batch, laneless = g.place(j); batch == nil {
			return worker.Standing{}, laneless
		}
		return g.ledger.ClaimFor(ctx, j.ID, j.Digest(), batch.id)
	})
	g.claims.Release(1)
	switch {
	case errors.Is(laneless, worker.ErrNoLane):
		return jobs.Verdict{Action: jobs.Dead, Reason: jobs.ReasonNoLane, Detail: laneless.Error()}
	case batch == nil:
		return verdict
	}
	err := g.join(batch, admitted)
	switch {
	case admitted == nil:
		return verdict
	case err != nil:
		return g.giveBack(ctx, admitted, err)
	}
	<-batch.done
	if batch.fate != nil {
		return g.giveBack(ctx, admitted, batch.fate)
	}
	return jobs.Verdict{Action: jobs.Ack}
}

// place gives a job a place in the open batch of its kind, opening one if need be. A batch is not sealed before every job that has a place
// has joined or is known not to come: a claim for a batch that does not hold the job would never end.
func (g *Gatherer) place(j *jobs.Job) (*gathering, error) {
	if !g.files.Serves(j.Region) {
		return nil, fmt.Errorf("%w: batch jobs of region %s: %w", worker.ErrNoLane, j.Region, errNotHere)
	}
	lane, err := g.cfg.Lane(j.Model.ID, j.Region)
	if err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.stop {
		return nil, errStopping
	}
	k := key{j.Model.ID, j.Region}
	b := g.open[k]
	if b == nil {
		b = &gathering{id: newID(), lane: lane, region: j.Region, done: make(chan struct{})}
		b.age = time.AfterFunc(g.cfg.Age, func() { g.close(k, b) })
		b.idle = time.AfterFunc(g.cfg.Idle, func() { g.close(k, b) })
		g.open[k] = b
	}
	b.coming.Add(1)
	if b.taken++; b.taken >= g.cfg.Rows {
		g.closeLocked(k, b)
	}
	return b, nil
}

var errStopping = errors.New("the worker is stopping")

// newID returns the id of a new batch: sortable by time, unique, and valid as a label's value.
func newID() string {
	return "b-" + strings.ToLower(time.Now().UTC().Format("20060102-150405")+"-"+rand.Text()[:10])
}

// join fills a job's place. Nil says that the job does not come.
func (g *Gatherer) join(b *gathering, a *worker.Admitted) error {
	defer b.coming.Done()
	if a == nil {
		return nil
	}
	line, hash, err := g.format.Line(a.Job, "", "")
	if err != nil {
		return err
	}
	if len(line) > maxLine {
		return fmt.Errorf("the request has %d bytes, more than %d", len(line), maxLine)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	b.rows = append(b.rows, &gathered{a, hash})
	b.bytes += int64(len(line))
	if !b.closed {
		b.idle.Reset(g.cfg.Idle)
	}
	if b.bytes >= g.cfg.Bytes {
		g.closeLocked(key{a.Job.Model.ID, b.region}, b)
	}
	return nil
}

// close ends the gathering of a batch, and seals it.
func (g *Gatherer) close(k key, b *gathering) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closeLocked(k, b)
}

func (g *Gatherer) closeLocked(k key, b *gathering) {
	if b.closed {
		return
	}
	b.closed = true
	b.age.Stop()
	b.idle.Stop()
	delete(g.open, k)
	stopping := g.stop
	g.work.Go(func() {
		defer close(b.done)
		b.coming.Wait()
		if len(b.rows) == 0 || stopping && len(b.rows) < fewRows {
			b.fate = errStopping
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), sealTime)
		defer cancel()
		if b.fate = g.seal(ctx, b); b.fate != nil {
			g.cfg.Log.Warn("a batch came to nothing; its jobs are given back", zap.String("batch", b.id), zap.Int("jobs", len(b.rows)), zap.Error(b.fate))
		}
	})
}

// Stop seals what is gathered, or gives it back where it is little. It takes no more, and returns at once; the handlers return when it
// is done.
func (g *Gatherer) Stop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stop = true
	for k, b := range g.open {
		g.closeLocked(k, b)
	}
}

// Close stops and waits.
func (g *Gatherer) Close() {
	g.Stop()
	g.work.Wait()
}

// giveBack releases a claim of a batch that came to nothing. A batch that may be sealed all the same keeps its jobs: whoever takes the
// hand-off finds out.
func (g *Gatherer) giveBack(ctx context.Context, a *worker.Admitted, cause error) jobs.Verdict {
	v := jobs.Verdict{Action: jobs.Retry, Detail: cause.Error(), After: backPause}
	if errors.Is(cause, errUnsure) {
		return v
	}
	if err := g.claims.Acquire(ctx, 1); err != nil {
		return v
	}
	defer g.claims.Release(1)
	if err := g.ledger.Release(ctx, a.Ticket, a.Spent); err != nil && !errors.Is(err, worker.ErrFenced) {
		g.cfg.Log.Warn("a claim could not be given back", zap.String("job_id", a.Job.ID), zap.Error(err))
	}
	return v
}
