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
	// DefaultRows bounds the jobs of a batch that a worker gathers: each holds a message and a goroutine until the batch is sealed, 15 to
	// 20 KB in all.
	DefaultRows = 25_000
	// DefaultAge is how long the first job of a batch waits for others. Batches take hours, and few large ones are served better than many
	// small ones.
	DefaultAge = 10 * time.Minute
	// DefaultIdle is how long a batch waits for one more job. A submission's jobs come within seconds of each other.
	DefaultIdle = time.Minute
)

const (
	// maxClaims bounds the claims that are made at a time: each is a small write to Cloud Storage.
	maxClaims = 256
	// maxLine bounds the line of a request: ten prompts' worth.
	maxLine = 1 << 20
	// stopTime is how long after Stop a batch may still be sealed, or jobs given back. What is not done by then is left to those who take this
	// worker for dead.
	stopTime = 30 * time.Second
	// fewRows is what is not worth a batch when the worker stops: the jobs go back, and another worker gathers them among more.
	fewRows = 100
	// backPause spaces the deliveries of a job whose batch came to nothing, and of a hand-off whose batch is not sealed yet.
	backPause = 10 * time.Second
)

// GatherConfig is what a Gatherer needs to know. Zero bounds stand for the defaults.
type GatherConfig struct {
	Worker string // the id of this worker, as in the ledger
	Rows   int    // of one batch, at most HardRows
	Bytes  int64  // of one batch's input, at most HardBytes
	Age    time.Duration
	Idle   time.Duration
	// Lane returns the lane that serves batches of a model and data region. The error wraps worker.ErrNoLane.
	Lane func(model, region string) (worker.Lane, error)
	Log  *zap.Logger
}

// Gatherer makes batches of the messages that it is handed. It is safe for concurrent use.
type Gatherer struct {
	cfg    GatherConfig
	spine  Spine
	ledger Ledger
	files  Files
	queue  Queue
	format Format
	claims *semaphore.Weighted
	life   context.Context // ends some time after Stop
	end    context.CancelFunc

	mu   sync.Mutex
	open map[key]*gathering
	stop bool // no batch stays open any more
	work sync.WaitGroup
}

// key is what the jobs of a batch have in common.
type key struct{ model, region string }

// gathering is a batch that is being gathered. The Gatherer's lock guards what is not constant; when nobody is coming any more, it does
// not change.
type gathering struct {
	id   string
	key  key
	lane worker.Lane

	taken   int            // places given to jobs, some of which may not come
	bytes   int64          // of their requests
	coming  sync.WaitGroup // jobs that have a place and are being claimed
	rows    []*gathered
	spoiled error // why the batch can't be sealed
	closed  bool  // gives no place any more
	age     *time.Timer
	idle    *time.Timer
	done    chan struct{} // closed when fate is known
	fate    error         // nil: sealed
}

// gathered is a job of a batch.
type gathered struct {
	*worker.Admitted
	hash [32]byte // of its request
}

// NewGatherer returns a Gatherer. Close it when no message is handled any more, unless Run does.
func NewGatherer(cfg GatherConfig, s Spine, l Ledger, f Files, q Queue, format Format) *Gatherer {
	if cfg.Rows == 0 {
		cfg.Rows = DefaultRows
	}
	cfg.Rows = min(cfg.Rows, HardRows)
	if cfg.Bytes == 0 {
		cfg.Bytes = HardBytes
	}
	cfg.Bytes = min(cfg.Bytes, HardBytes)
	if cfg.Age == 0 {
		cfg.Age = DefaultAge
	}
	if cfg.Idle == 0 {
		cfg.Idle = DefaultIdle
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	g := &Gatherer{
		cfg: cfg, spine: s, ledger: l, files: f, queue: q, format: format, claims: semaphore.NewWeighted(maxClaims), open: map[key]*gathering{},
	}
	g.life, g.end = context.WithCancel(context.Background())
	return g
}

// Run gathers what receive delivers until ctx ends, and returns when nothing is held any more. receive is as Receive of
// [worker.Queue]. This worker must give signs of life all the while.
func (g *Gatherer) Run(ctx context.Context, receive func(context.Context, func(context.Context, *jobs.Delivery) jobs.Verdict) error) error {
	defer context.AfterFunc(ctx, g.Stop)()
	defer g.Close()
	return receive(ctx, g.Handle)
}

// Handle takes a message into the open batch of its kind, and returns when the batch is sealed, or came to nothing.
func (g *Gatherer) Handle(ctx context.Context, d *jobs.Delivery) jobs.Verdict {
	b, joined, verdict := g.admit(ctx, d)
	if joined == nil {
		return verdict
	}
	<-b.done
	if b.fate != nil {
		return g.giveBack(ctx, joined, b.fate)
	}
	return jobs.Verdict{Action: jobs.Ack}
}

// admit takes a message as far as a place in a batch that is its own. Without one, the verdict says what becomes of the message.
func (g *Gatherer) admit(ctx context.Context, d *jobs.Delivery) (_ *gathering, joined *gathered, v jobs.Verdict) {
	ctx, cancel := g.within(ctx)
	defer cancel()
	if err := g.claims.Acquire(ctx, 1); err != nil {
		return nil, nil, jobs.Verdict{Action: jobs.Retry, Detail: errStopping.Error()}
	}
	defer g.claims.Release(1)
	p := &place{}
	// A panic must not take down thousands of other jobs, nor may its job's message be lost or its claim stay behind.
	defer func() {
		if fault := recover(); fault != nil {
			g.cfg.Log.Error("panic while gathering a job", zap.String("message_id", d.ID), zap.String("panic", fmt.Sprint(fault)), zap.Stack("stack"))
			joined, v = nil, jobs.Verdict{Action: jobs.Retry, Detail: "panic", After: backPause}
		}
		if joined == nil && p.batch != nil {
			g.leave(ctx, p, v)
		}
	}()
	admitted, v := g.spine.Admit(ctx, d, func(ctx context.Context, j *jobs.Job) (worker.Standing, error) {
		if err := g.take(j, p); err != nil {
			return worker.Standing{}, err
		}
		var err error
		p.standing, err = g.ledger.ClaimFor(ctx, j.ID, j.Digest(), p.batch.id)
		return p.standing, err
	})
	if admitted == nil {
		return nil, nil, v
	}
	joined = &gathered{admitted, p.hash}
	g.join(p.batch, joined)
	return p.batch, joined, v
}

// within returns ctx, that also ends when the time to stop is over.
func (g *Gatherer) within(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	unwatch := context.AfterFunc(g.life, func() { cancel(errStopping) })
	return ctx, func() { unwatch(); cancel(nil) }
}

// place is what a batch keeps for one job until it is known whether it comes.
type place struct {
	batch    *gathering // nil: there is none
	bytes    int64
	hash     [32]byte
	standing worker.Standing // what the ledger said
}

var errStopping = errors.New("the worker is stopping")

// take finds a place for a job in the open batch of its kind, opening one if need be. A batch is not sealed before every job that has a place
// has joined or left: a claim for a sealed batch that does not hold the job would never end.
func (g *Gatherer) take(j *jobs.Job, p *place) error {
	lane, err := g.serve(j, p)
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.stop {
		return errStopping
	}
	k := key{j.Model.ID, j.Region}
	b := g.open[k]
	if b != nil && b.bytes+p.bytes > g.cfg.Bytes {
		g.closeLocked(b)
		b = nil
	}
	if b == nil {
		b = &gathering{id: newID(), key: k, lane: lane, done: make(chan struct{})}
		b.age = time.AfterFunc(g.cfg.Age, func() { g.close(b) })
		b.idle = time.AfterFunc(g.cfg.Idle, func() { g.close(b) })
		g.open[k] = b
	}
	p.batch = b
	b.coming.Add(1)
	b.bytes += p.bytes
	if b.taken++; b.taken >= g.cfg.Rows {
		g.closeLocked(b)
	}
	return nil
}

// serve finds out how a job would be sent in a batch. The error wraps worker.ErrNoLane when it can't be.
func (g *Gatherer) serve(j *jobs.Job, p *place) (worker.Lane, error) {
	if !g.files.Serves(j.Region) {
		return worker.Lane{}, fmt.Errorf("%w: this worker keeps its batches outside of data region %s", worker.ErrNoLane, j.Region)
	}
	lane, err := g.cfg.Lane(j.Model.ID, j.Region)
	if err != nil {
		return worker.Lane{}, err
	}
	hi, lo := labels(0) // of the same length as any row's
	line, hash, err := g.format.Line(j, hi, lo)
	switch {
	case err != nil:
		return worker.Lane{}, fmt.Errorf("%w: no request can be made of the job: %w", worker.ErrNoLane, err)
	case len(line) > maxLine:
		return worker.Lane{}, fmt.Errorf("%w: the request has %d bytes, more than %d", worker.ErrNoLane, len(line), maxLine)
	}
	p.bytes, p.hash = int64(len(line)), hash
	return lane, nil
}

// newID returns the id of a new batch: sortable by time, unique, and valid as a label's value and as a job's id.
func newID() string {
	return "b-" + strings.ToLower(time.Now().UTC().Format("20060102-150405")+"-"+rand.Text()[:10])
}

// join fills a job's place.
func (g *Gatherer) join(b *gathering, r *gathered) {
	defer b.coming.Done()
	g.mu.Lock()
	defer g.mu.Unlock()
	b.rows = append(b.rows, r)
	if !b.closed {
		b.idle.Reset(g.cfg.Idle)
	}
}

// leave gives up a job's place. A claim that was granted must not outlive it, and nobody knows whether it does where the message is to come
// again: what should have released or ended the job may have failed.
func (g *Gatherer) leave(ctx context.Context, p *place, v jobs.Verdict) {
	held := p.standing.State == worker.Granted && v.Action == jobs.Retry
	var err error
	if held {
		err = g.ledger.Release(ctx, p.standing.Ticket, p.standing.Spent)
	}
	g.mu.Lock()
	p.batch.taken--
	p.batch.bytes -= p.bytes
	if err != nil && !errors.Is(err, worker.ErrFenced) {
		p.batch.spoiled = fmt.Errorf("job %s is claimed for the batch and not in it: %w", p.standing.Ticket.JobID, err)
	}
	g.mu.Unlock()
	p.batch.coming.Done()
	if err != nil {
		g.release(ctx, p.standing.Ticket, p.standing.Spent)
	}
}

// release gives up a claim, however long it takes: a claim that a living worker has forgotten is held until the worker ends.
func (g *Gatherer) release(ctx context.Context, t worker.Ticket, spent worker.Spent) {
	for {
		err := g.ledger.Release(ctx, t, spent)
		if err == nil || errors.Is(err, worker.ErrFenced) {
			return
		}
		g.cfg.Log.Warn("a claim could not be given back", zap.String("job_id", t.JobID), zap.Error(err))
		if !sleep(ctx, backPause) {
			return
		}
	}
}

// sleep waits, and reports false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// close ends the gathering of a batch, and seals it.
func (g *Gatherer) close(b *gathering) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closeLocked(b)
}

func (g *Gatherer) closeLocked(b *gathering) {
	if b.closed {
		return
	}
	b.closed = true
	b.age.Stop()
	b.idle.Stop()
	delete(g.open, b.key)
	stopping := g.stop
	g.work.Go(func() {
		defer close(b.done)
		b.coming.Wait()
		switch {
		case b.spoiled != nil:
			b.fate = b.spoiled
		case len(b.rows) == 0 || stopping && len(b.rows) < fewRows:
			b.fate = errStopping
			return
		default:
			b.fate = g.seal(g.life, b)
		}
		if b.fate != nil {
			g.cfg.Log.Warn("a batch came to nothing; its jobs are given back", zap.String("batch", b.id), zap.Int("jobs", len(b.rows)), zap.Error(b.fate))
		}
	})
}

// Stop seals what is gathered, or gives it back where it is little. It takes no more, and returns at once; the handlers return when it
// is done.
func (g *Gatherer) Stop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.stop {
		return
	}
	g.stop = true
	time.AfterFunc(stopTime, g.end)
	for _, b := range g.open {
		g.closeLocked(b)
	}
}

// Close stops and waits. No message may be handled any more.
func (g *Gatherer) Close() {
	g.Stop()
	g.work.Wait()
	g.end()
}

// giveBack releases a claim of a batch that came to nothing. A batch that may be sealed all the same keeps its jobs: whoever takes the
// hand-off finds out.
func (g *Gatherer) giveBack(ctx context.Context, r *gathered, cause error) jobs.Verdict {
	v := jobs.Verdict{Action: jobs.Retry, Detail: cause.Error(), After: backPause}
	if errors.Is(cause, errUnsure) {
		return v
	}
	ctx, cancel := g.within(ctx)
	defer cancel()
	if err := g.claims.Acquire(ctx, 1); err != nil {
		return v
	}
	defer g.claims.Release(1)
	g.release(ctx, r.Ticket, r.Spent)
	return v
}
