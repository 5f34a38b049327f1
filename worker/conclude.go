package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/attribute"

	"github.com/assetmill/assetmill/jobs"
)

// Admitted is a job that was claimed for a batch, and what is known of the message that brought it.
type Admitted struct {
	Job                 *jobs.Job
	Ticket              Ticket
	Spent               Spent
	MessageID           string
	Published, Received time.Time
	Trace               string // of the job, as W3C's traceparent; empty: none
}

// Admit takes a message of mode batch as far as the spine goes before a call: decoded, claimed by the given function, allowed by the owner
// of its submission and by the bounds on calls and time. When the job goes no further, it returns nil, and what is to become of the
// message; what had to be recorded is durable then.
func (w *Worker) Admit(ctx context.Context, d *jobs.Delivery, claim func(context.Context, *jobs.Job) (Standing, error)) (*Admitted, jobs.Verdict) {
	ctx, halt := context.WithCancelCause(ctx)
	defer halt(nil)
	run, span := (&run{Worker: w, receiving: ctx, calls: ctx, settle: ctx, halt: halt}).traced(ctx, d)
	t := &task{run: run, delivery: d, received: time.Now()}
	a, v := t.admitted(claim)
	if a != nil {
		a.Trace = traceParent(run.settle)
		span.SetAttributes(attribute.String("assetmill.verdict", "gathered"))
		span.End()
		return a, v
	}
	endJob(span, v)
	return nil, v
}

func (t *task) admitted(claim func(context.Context, *jobs.Job) (Standing, error)) (*Admitted, jobs.Verdict) {
	if v := t.admit(jobs.Batch, func(j *jobs.Job) (Standing, error) { return claim(t.receiving, j) }); v.Action != 0 {
		return nil, v
	}
	if t.answer == nil {
		may, err := t.mayCall(t.receiving)
		if err != nil {
			return nil, t.giveUp(err)
		}
		if may {
			return &Admitted{
				Job: t.job, Ticket: t.ticket, Spent: t.spent, MessageID: t.delivery.ID, Published: t.delivery.Published, Received: t.received,
			}, jobs.Verdict{}
		}
	}
	return nil, t.finish()
}

// Conclusion is how a call ended that the spine did not make: a row of a batch's output. One of Answer, Err and Reason is set.
type Conclusion struct {
	Job    *jobs.Job
	Ticket Ticket
	Spent  Spent // before this call
	Lane   Lane
	Batch  string // id of the batch

	// Of the message that brought the job.
	MessageID           string
	Published, Received time.Time
	Trace               string

	Called, Answered time.Time
	Answer           *Answer // its image is released
	Err              *CallError
	// Reason ends the job without a call, with Detail as the words for it.
	Reason jobs.Reason
	Detail string
}

// Conclude takes the job the same way that the spine takes it after a call: asset, ledger, lineage, result. Three things may happen:
//  1. ended is true: the job has ended and everything is durable.
//  2. ended is false and err is nil: the call yielded nothing that counts, and the job needs another. What was spent, this call
//     included, is returned. Nothing was written.
//  3. err is not nil: it wraps [ErrFenced] when the ticket does not hold the job, which has ended otherwise or is another's. It wraps
//     [ErrRowRefused] when the job has ended and lineage can never store its row: its message must be published again, and becomes a dead
//     letter. After any other error the job's end may or may not be written, and concluding again is right.
//
// It is safe for concurrent use, also beside Run.
func (w *Worker) Conclude(ctx context.Context, c Conclusion) (ended bool, spent Spent, err error) {
	ctx, halt := context.WithCancelCause(ctx)
	defer halt(nil)
	delivery := &jobs.Delivery{ID: c.MessageID, Published: c.Published}
	run, span := (&run{Worker: w, receiving: ctx, calls: ctx, settle: ctx, halt: halt}).traced(withTraceParent(ctx, c.Trace), delivery)
	defer func() { endSpan(span, err) }()
	t := &task{
		run: run, delivery: delivery,
		received: c.Received, message: c.Job.Message(), job: c.Job, ticket: c.Ticket, spent: c.Spent,
		lane: c.Lane, batch: c.Batch, called: c.Called, answered: c.Answered,
	}
	switch {
	case c.Reason != "":
		t.failure = &failure{c.Reason, c.Detail}
	case c.Err != nil:
		_, err = t.judge(c.Err)
	default:
		t.accept(c.Answer)
	}
	if err != nil || t.answer == nil && t.failure == nil {
		return false, t.spent, err
	}
	return true, t.spent, t.conclude()
}

// conclude makes the end durable, and known.
func (t *task) conclude() error {
	if err := t.store(); err != nil {
		return err
	}
	end := t.end()
	if err := t.ports.Ledger.Finish(t.settle, t.ticket, end); err != nil {
		return err
	}
	t.tally.ended(t, jobs.Reason(end.Generation.GetReason()))
	return t.known(end)
}

// Repeat makes a recorded end known once more, for whoever can't tell whether it was. An error that wraps [ErrRowRefused] means what it
// means for Conclude.
func (w *Worker) Repeat(ctx context.Context, c Conclusion, end Record) error {
	delivery := &jobs.Delivery{ID: c.MessageID, Published: c.Published}
	run, span := (&run{Worker: w, receiving: ctx, calls: ctx, settle: ctx, halt: func(error) {}}).traced(withTraceParent(ctx, c.Trace), delivery)
	t := &task{run: run, delivery: delivery, received: c.Received, message: c.Job.Message(), job: c.Job}
	err := t.known(t.repeated(end))
	endSpan(span, err)
	return err
}

// errUnknown says that an end is recorded and not yet known to everybody.
var errUnknown = errors.New("the job's end is recorded, but could not be made known")

// known announces an end, and fails where a message would be given back or given up.
func (t *task) known(end Record) error {
	switch v := t.announce(end); v.Action {
	case jobs.Retry:
		return errUnknown
	case jobs.Dead:
		return fmt.Errorf("%w: %s", ErrRowRefused, v.Detail)
	default:
		return nil
	}
}
