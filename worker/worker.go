package worker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/assetmill/assetmill/internal/retry"
	"github.com/assetmill/assetmill/jobs"
)

// Bounds of a job's life in a worker.
const (
	// MaxCalls bounds the calls for one job that may have been paid for or that the service answered with an error, over all workers. What
	// survives four tries does not go away by a fifth, and each may cost the price of an image.
	MaxCalls = 4
	// errorPause is the shortest pause after such a call. With the growing pauses on top, four tries span the restart of a service.
	errorPause = 10 * time.Second
	// maxHold bounds how long a job waits in a worker through throttling and failures. Then it goes back to the queue, where
	// a worker with capacity may find it. With one call of ten minutes it stays far below the queue's longest lease.
	maxHold = 10 * time.Minute
	// firstPause and lastPause are Google's advice for 429: a second at first, doubling, a minute at most, with jitter.
	firstPause = time.Second
	lastPause  = 60 * time.Second
	// busyPause spaces the deliveries of a job that another worker holds. Calls take 7 to 60 s.
	busyPause = 5 * time.Second
	// troublePause spaces the deliveries of a job whose ledger, storage or lineage could not be reached.
	troublePause = 5 * time.Second
	// pausedPause spaces the deliveries of jobs whose submission is paused. It is how long a resumed job waits at most.
	pausedPause = 10 * time.Second
	// settleTime is how long after the last call's end its image may still be stored and recorded before the worker gives up.
	// A retention of images beyond that would need more time than a container gets between its signals.
	settleTime = 20 * time.Second
)

// DefaultGrace is how long calls in flight may go on after a worker is told to stop: an image takes 7 to 60 s.
const DefaultGrace = 75 * time.Second

// Config is what a worker needs to know besides its ports.
type Config struct {
	ID        string          // unique among all workers, also after a restart
	Version   string          // of the program, for lineage
	Grace     time.Duration   // for calls in flight at a stop; 0 stands for DefaultGrace
	Catalogue *jobs.Catalogue // models and prices
	Log       *zap.Logger
	// Beside are loops that share the worker's life: they begin with it, stop taking in what is new when receiving ends, and give up when
	// settle ends. Run waits for them; an error of one stops the worker.
	Beside []func(receiving, settle context.Context) error
	// Hurry, when it is closed, ends the grace of calls in flight at once. It means nothing before the worker is told to stop.
	Hurry <-chan struct{}
	// Meter and Tracer show what the worker does (docs/metrics.md, docs/observability.md). Without them nothing is measured or traced, at
	// no cost; the trace of a message still goes on to its row and its result.
	Meter  metric.Meter
	Tracer trace.Tracer
}

// Ports are the worker's connections to the world.
type Ports struct {
	Queue    Queue
	Controls Controls
	Ledger   Ledger
	Lanes    Lanes
	Model    Model
	Assets   Assets
	Lineage  Lineage
	Results  Results
}

// Worker handles jobs until it is stopped.
type Worker struct {
	cfg    Config
	ports  Ports
	tally  tally
	meters *meters // nil: nothing is measured
}

// New returns a worker. It does nothing until Run.
func New(cfg Config, ports Ports) *Worker {
	if cfg.Grace == 0 {
		cfg.Grace = DefaultGrace
	}
	w := &Worker{cfg: cfg, ports: ports}
	w.observe()
	return w
}

var (
	errStopping = errors.New("the worker is stopping")
	errOvertime = errors.New("the worker's time to stop is over")
)

// Run handles jobs until ctx ends or no job can be served any more. The stop is ordered: first no message is taken any more
// and what waits is given back; then the calls in flight have Config.Grace to end; what they made is stored and recorded; only
// then does Run return. The error is nil when ctx ended.
func (w *Worker) Run(ctx context.Context) error {
	receiving, halt := context.WithCancelCause(ctx)
	defer halt(nil)
	calls, cutCalls := context.WithCancelCause(context.WithoutCancel(ctx))
	settle, cutSettle := context.WithCancelCause(context.WithoutCancel(ctx))
	r := &run{Worker: w, receiving: receiving, calls: calls, settle: settle, halt: halt}

	beating, rest := context.WithCancel(context.WithoutCancel(ctx))
	var helpers sync.WaitGroup
	helpers.Go(func() { w.ports.Ledger.Beat(beating) })
	helpers.Go(func() {
		<-receiving.Done()
		r.awaitCalls()
		cutCalls(errStopping)
		if retry.Sleep(settle, settleTime) == nil {
			cutSettle(errOvertime)
		}
	})
	var beside errgroup.Group
	for _, loop := range w.cfg.Beside {
		beside.Go(func() error {
			err := loop(receiving, settle)
			if err != nil {
				halt(err)
			}
			return err
		})
	}
	err := w.ports.Queue.Receive(receiving, r.handle)
	cause := context.Cause(receiving)
	halt(nil)
	err = errors.Join(err, beside.Wait())
	cutCalls(nil)
	cutSettle(nil)
	rest() // last: as long as anything is held, this worker must be seen to live
	helpers.Wait()

	switch {
	case err != nil:
		return err
	case cause != nil && ctx.Err() == nil:
		return cause
	default:
		return nil
	}
}

// run is one Run: the worker and the contexts that its stop ends one after the other.
type run struct {
	*Worker
	receiving context.Context         // ends when no message is to be taken any more
	calls     context.Context         // ends when calls in flight are to be cut off
	settle    context.Context         // ends when what was made is not to be recorded any more
	halt      context.CancelCauseFunc // stops the whole run, with the reason
}

// awaitCalls waits until the calls in flight have had their grace, or nothing is in flight any more.
func (r *run) awaitCalls() {
	grace := time.NewTimer(r.cfg.Grace)
	defer grace.Stop()
	select {
	case <-grace.C:
	case <-r.cfg.Hurry:
	case <-r.calls.Done():
	}
}

// handle is the queue's handler. A panic must not take down thousands of other calls in flight, nor may its message be lost or
// its claim stay behind.
func (r *run) handle(ctx context.Context, d *jobs.Delivery) (v jobs.Verdict) {
	own, span := r.traced(ctx, d)
	t := &task{run: own, delivery: d, received: time.Now()}
	r.tally.begin(t)
	defer r.tally.end(t)
	defer func() { endJob(span, v) }()
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		r.cfg.Log.Error("panic while handling a message", t.fields(zap.String("panic", fmt.Sprint(p)), zap.Stack("stack"))...)
		v = jobs.Verdict{Action: jobs.Retry, Detail: "panic", After: troublePause}
		if t.calling {
			t.answered = time.Now()
			t.spend(t.attempt(resultUnknown, reasonPanic, fmt.Sprint(p)), t.estimate(t.lane), true)
		}
		if t.ticket.JobID != "" {
			v = t.giveUp(fmt.Errorf("panic: %v", p))
		}
	}()
	return t.process()
}
