package worker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/googleapis/gax-go/v2"

	"github.com/assetmill/assetmill/internal/retry"
	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
)

// Results of a call, as attempts_raw.result names them.
const (
	resultImage   = "image"
	resultRefused = "refused"
	resultUseless = "useless"
	resultError   = "error"
	resultUnknown = "unknown"
)

// Reasons of calls that a worker left behind, beside the reasons of answers and the kinds of errors.
const (
	reasonAbandoned = "abandoned" // no trace of the call's answer
	reasonAdopted   = "adopted"   // its asset is stored
	reasonPanic     = "panic"     // the worker had a bug
)

// defaultTier is what a call is counted at whose lane nobody knows.
const defaultTier = "standard"

// call has the model make the image. It waits for a lane, through throttling too, and tries again after errors that may pass,
// within the bounds on calls and on time. It returns nil when the job has come to its end: an answer, or a failure. It returns an
// error when the job must go back to the queue.
func (t *task) call() error {
	// Waiting ends with the worker's receiving; a call that has begun goes on, since it may be paid.
	hold := maxHold
	if d := t.job.Deadline; !d.IsZero() {
		hold = min(hold, time.Until(d)) // the next delivery ends it
	}
	waiting, cancel := context.WithTimeoutCause(t.receiving, hold, errHeldTooLong)
	defer cancel()
	backoff := gax.Backoff{Initial: firstPause, Max: lastPause, Multiplier: 2}
	for t.answer == nil && t.failure == nil {
		if may, err := t.mayCall(waiting); !may || err != nil {
			return err
		}
		permit, err := t.ports.Lanes.Next(waiting, t.job)
		if err != nil {
			return t.laneless(waiting, err)
		}
		// The wait may have been long: an image that was on its way may have come, and the job may be another's by now.
		if err := t.lookAgain(); err != nil || t.answer != nil {
			permit.Drop()
			return err
		}
		if may, err := t.mayCall(waiting); !may || err != nil {
			permit.Drop()
			return err
		}
		pause, err := t.callBy(permit)
		if err != nil {
			return err
		}
		if pause > 0 && retry.Sleep(waiting, pause+backoff.Pause()) != nil {
			return t.whyNot(waiting)
		}
		if err := t.lookAgain(); err != nil {
			return err
		}
	}
	return nil
}

// callBy makes one call, and says how long to wait at least before another, if there must be another. With an error the job must go
// back to the queue.
func (t *task) callBy(permit Permit) (pause time.Duration, _ error) {
	t.lane = permit.Lane()
	t.called, t.calling = time.Now(), true
	answer, err := t.generate(permit)
	t.answered, t.calling = time.Now(), false
	if err != nil {
		return t.judge(err)
	}
	return t.accept(answer), nil
}

// generate makes the call that the permit stands for. It is bounded by the model's own time-out, not by the wait.
func (t *task) generate(permit Permit) (*Answer, error) {
	give := permit.Drop // if the model panics, which says nothing about the lane
	defer func() { give() }()
	answer, err := t.ports.Model.Generate(t.calls, Call{Job: t.job, Lane: permit.Lane(), Attempt: t.spent.Calls + 1, Prefix: t.ports.Assets.Prefix(t.job)})
	give = func() { permit.End(err) }
	return answer, err
}

// laneless says what it means that no lane was found.
func (t *task) laneless(waiting context.Context, err error) error {
	switch {
	case errors.Is(err, ErrLanesShut):
		t.halt(fmt.Errorf("no job can be served: %w", err))
		return err
	case waiting.Err() != nil:
		return t.whyNot(waiting)
	default:
		return err
	}
}

// whyNot is the reason why the job waits no longer.
func (t *task) whyNot(waiting context.Context) error {
	if t.receiving.Err() != nil {
		return errStopping
	}
	return context.Cause(waiting)
}

// lookAgain looks whether a call whose image nobody has recorded has left it in the bucket, so that it need not be paid for again.
func (t *task) lookAgain() error {
	if !t.unsure || t.answer != nil {
		return nil
	}
	asset, found, err := t.ports.Assets.Find(t.settle, t.job)
	if err != nil {
		return err
	}
	if found {
		t.unsure = false
		t.adopt(asset, "adopted from a call whose answer was lost")
	}
	return nil
}

var errHeldTooLong = fmt.Errorf("the job waited %s for the model", maxHold)

// errWait says that a job goes back to the queue for a while.
type errWait struct {
	why   string
	after time.Duration
}

func (e errWait) Error() string { return e.why }

// mayCall decides, just before a call, whether it may be made. Otherwise the job has come to its end (nil), or must go back to
// the queue (an error).
func (t *task) mayCall(waiting context.Context) (bool, error) {
	switch {
	case t.receiving.Err() != nil:
		return false, errStopping
	case !t.job.Deadline.IsZero() && !time.Now().Before(t.job.Deadline):
		t.failure = &failure{jobs.ReasonDeadlinePassed, "the deadline " + t.job.Deadline.UTC().Format(time.RFC3339) + " had passed"}
		return false, nil
	case waiting.Err() != nil:
		return false, context.Cause(waiting)
	case t.spent.Calls >= MaxCalls:
		t.failure = &failure{jobs.ReasonAttemptsExhausted, fmt.Sprintf("%d calls were made for the job, and none came to an end", t.spent.Calls)}
		return false, nil
	}
	control, err := t.ports.Controls.Control(t.settle, t.job.Submission)
	switch {
	case err != nil:
		return false, err
	case control == Pause:
		return false, errWait{"its submission is paused", pausedPause}
	case control == Cancel:
		t.failure = &failure{jobs.ReasonCancelled, "its submission was cancelled before the call"}
		return false, nil
	}
	if err := t.ports.Ledger.Confirm(t.settle, t.ticket); err != nil {
		return false, err
	}
	return true, nil
}

// accept takes a complete answer. A pause says that the job has not come to its end with it.
func (t *task) accept(a *Answer) (pause time.Duration) {
	attempt := t.attempt(answerResult(a.Reason), string(a.Reason), a.Detail)
	attempt.HttpStatus = 200
	attempt.ResponseId, attempt.TrafficType = a.ResponseID, a.TrafficType
	setUsage(attempt, a.Usage)
	t.spend(attempt, t.cost(a), a.UsageMissing)
	if a.Reason != jobs.ReasonBadAnswer {
		t.answer = a
		return 0
	}
	if t.spent.Calls >= MaxCalls {
		t.answer = a
		t.failure = &failure{jobs.ReasonBadAnswer, a.Detail}
		return 0
	}
	return errorPause
}

// answerResult is what a whole answer is worth.
func answerResult(reason jobs.Reason) string {
	switch reason.Outcome() {
	case jobs.Refused:
		return resultRefused
	case jobs.Failed:
		return resultUseless
	default:
		return resultImage
	}
}

// judge decides what an error of a call means for the job: it has come to its end, or another call may be tried after at least the
// pause; or, with an error, the job must go back to the queue.
func (t *task) judge(err error) (pause time.Duration, _ error) {
	var ce *CallError
	if !errors.As(err, &ce) {
		return 0, err // not of the closed set: a programming error of the model; never guess about money
	}
	switch ce.Kind {
	case Throttled:
		// The lanes know how long to wait, and there may be another.
		t.spent.Throttled++
		t.tally.change(func(s *Stats) { s.Throttled++ })
		return 0, nil
	case Unreached:
		t.tally.change(func(s *Stats) { s.Unreached++ })
		return firstPause, nil
	case Denied:
		return 0, nil // the lane is shut; there may be another
	case Interrupted:
		return 0, ce
	case Rejected:
		t.spend(t.attemptError(resultError, ce), 0, false)
		t.failure = &failure{ce.Reason, ce.Detail}
		return 0, nil
	case Unanswered:
		// It may be paid for. Counting it at the price of an image keeps budgets on the safe side.
		t.unsure = true
		t.spend(t.attemptError(resultUnknown, ce), t.estimate(t.lane), true)
	default:
		t.spend(t.attemptError(resultError, ce), 0, false)
	}
	if t.calls.Err() != nil {
		return 0, ce
	}
	if t.spent.Calls >= MaxCalls && !t.unsure {
		t.failure = &failure{jobs.ReasonAttemptsExhausted, fmt.Sprintf("%d calls failed; the last: %s", t.spent.Calls, ce.Error())}
		return 0, nil
	}
	return max(ce.RetryAfter, errorPause), nil
}

// estimate is what a call should cost that nobody has counted.
func (t *task) estimate(l Lane) jobs.USD {
	switch {
	case l.ImagePrice != nil:
		return *l.ImagePrice
	case l.Tier == "":
		return t.cfg.Catalogue.Estimate(t.job, defaultTier)
	default:
		return t.cfg.Catalogue.Estimate(t.job, l.Tier)
	}
}

// cost is what an answer costs.
func (t *task) cost(a *Answer) jobs.USD {
	image := a.Reason == jobs.ReasonImage
	switch {
	case t.lane.ImagePrice != nil && image:
		return *t.lane.ImagePrice
	case t.lane.ImagePrice != nil:
		return 0
	case image:
		return t.cfg.Catalogue.Cost(t.job.Model, t.lane.Tier, t.job.WithImage(a.Usage))
	default:
		return t.cfg.Catalogue.Cost(t.job.Model, t.lane.Tier, a.Usage)
	}
}

// spend counts one call.
func (t *task) spend(attempt *schemas.AttemptRow, cost jobs.USD, fallback bool) {
	t.spent.Calls++
	t.spent.Cost += cost
	t.spent.Fallback = t.spent.Fallback || fallback
	attempt.Attempt = int64(t.spent.Calls)
	attempt.CostUsd = cost.String()
	attempt.CostIsFallback = &fallback
	t.spent.Attempts = append(t.spent.Attempts, attempt)
	t.tally.spent(attempt, cost)
}

// attempt begins the row of the call that has just ended.
func (t *task) attempt(result, reason, detail string) *schemas.AttemptRow {
	ms := t.answered.Sub(t.called).Milliseconds()
	return &schemas.AttemptRow{
		AttemptId: t.job.ID + "/" + rand.Text(), JobId: t.job.ID, Submission: t.job.Submission, Campaign: t.job.Campaign, Client: t.job.Client,
		Worker: t.cfg.ID, Lane: t.lane.Name, Tier: t.lane.Tier, Location: t.lane.Location, Model: t.job.Model.ID,
		Result: result, Reason: reason, Detail: jobs.Cut(detail, maxDetail),
		StartedAt: t.called.UnixMicro(), EndedAt: t.answered.UnixMicro(), CallMs: &ms,
		PriceVersion: t.cfg.Catalogue.Version(), BatchId: t.batch,
	}
}

func (t *task) attemptError(result string, ce *CallError) *schemas.AttemptRow {
	row := t.attempt(result, ce.Kind.String(), ce.Error())
	row.HttpStatus = int64(ce.Status)
	return row
}

func setUsage(row *schemas.AttemptRow, u jobs.Usage) {
	row.PromptTokens, row.TextTokens, row.ImageTokens, row.ThoughtTokens, row.TotalTokens = u.Prompt, u.Text, u.Image, u.Thought, u.Total
}
