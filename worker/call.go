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

// call has the model make the image. It waits through throttling, and tries again after errors that may pass, within the
// bounds on calls and on time. It returns nil when the job has come to its end: an answer, or a failure. It returns an error
// when the job must go back to the queue.
func (t *task) call() error {
	if t.answer != nil {
		return nil // adopted
	}
	hold, cancel := context.WithTimeoutCause(t.calls, maxHold, errHeldTooLong)
	defer cancel()
	backoff := gax.Backoff{Initial: firstPause, Max: lastPause, Multiplier: 2}
	for {
		if may, err := t.mayCall(hold); !may || err != nil {
			return err
		}
		t.called, t.calling = time.Now(), true
		// The call itself is bounded by the model's own time-out, not by the hold: a call that has begun may be paid.
		answer, err := t.ports.Model.Generate(t.calls, t.job)
		t.answered, t.calling = time.Now(), false
		pause := backoff.Pause()
		if err == nil {
			if t.accept(answer) {
				return nil
			}
		} else {
			again, after, err := t.judge(err)
			if err != nil || !again {
				return err
			}
			pause += after
		}
		if err := retry.Sleep(hold, pause); err != nil {
			return err
		}
	}
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
func (t *task) mayCall(hold context.Context) (bool, error) {
	switch {
	case t.receiving.Err() != nil:
		return false, errStopping
	case hold.Err() != nil:
		return false, context.Cause(hold)
	case !t.job.Deadline.IsZero() && time.Now().After(t.job.Deadline):
		t.failure = &failure{jobs.ReasonDeadlinePassed, "the deadline " + t.job.Deadline.UTC().Format(time.RFC3339) + " had passed"}
		return false, nil
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

// accept takes a complete answer. It reports whether the job has come to its end with it.
func (t *task) accept(a *Answer) bool {
	t.lane = a.Lane
	cost := t.cfg.Catalogue.Cost(t.job.Model, a.Lane.Tier, a.Usage)
	attempt := t.attempt(resultImage, string(a.Reason), a.Detail)
	attempt.HttpStatus = 200
	attempt.ResponseId, attempt.TrafficType = a.ResponseID, a.TrafficType
	switch a.Reason.Outcome() {
	case jobs.Refused:
		attempt.Result = resultRefused
	case jobs.Failed:
		attempt.Result = resultUseless
	}
	setUsage(attempt, a.Usage)
	t.spend(attempt, cost, a.UsageMissing)
	if a.Reason != jobs.ReasonBadAnswer {
		t.answer = a
		return true
	}
	if t.spent.Calls >= MaxCalls {
		t.answer = a
		t.failure = &failure{jobs.ReasonBadAnswer, a.Detail}
		return true
	}
	return false
}

// judge decides what an error of a call means for the job: whether to try again, and after which pause at least; or, with an
// error, that the job must go back to the queue.
func (t *task) judge(err error) (again bool, after time.Duration, _ error) {
	var ce *CallError
	if !errors.As(err, &ce) {
		return false, 0, err // not of the closed set: a programming error of the model; never guess about money
	}
	t.lane = ce.Lane
	switch ce.Kind {
	case Throttled:
		t.spent.Throttled++
		t.tally.change(func(s *Stats) { s.Throttled++ })
		return true, ce.RetryAfter, nil
	case Unreached:
		t.tally.change(func(s *Stats) { s.Unreached++ })
		return true, ce.RetryAfter, nil
	case Denied:
		t.halt(fmt.Errorf("no job can be served: %w", ce))
		return false, 0, ce
	case Interrupted:
		return false, 0, ce
	case Rejected:
		t.spend(t.attemptError(resultError, ce), 0, false)
		t.failure = &failure{ce.Reason, ce.Detail}
		return false, 0, nil
	case Unanswered:
		// It may be paid for. Counting it at the price of an image keeps budgets on the safe side.
		t.spend(t.attemptError(resultUnknown, ce), t.cfg.Catalogue.Estimate(t.job, ce.Lane.Tier), true)
	default:
		t.spend(t.attemptError(resultError, ce), 0, false)
	}
	if t.spent.Calls >= MaxCalls {
		t.failure = &failure{jobs.ReasonAttemptsExhausted, fmt.Sprintf("%d calls failed; the last: %s", t.spent.Calls, ce.Error())}
		return false, 0, nil
	}
	if t.calls.Err() != nil {
		return false, 0, ce
	}
	return true, max(ce.RetryAfter, errorPause), nil
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
}

// attempt begins the row of the call that has just ended.
func (t *task) attempt(result, reason, detail string) *schemas.AttemptRow {
	ms := t.answered.Sub(t.called).Milliseconds()
	return &schemas.AttemptRow{
		AttemptId: t.job.ID + "/" + rand.Text(), JobId: t.job.ID, Submission: t.job.Submission, Campaign: t.job.Campaign, Client: t.job.Client,
		Worker: t.cfg.ID, Lane: t.lane.Name, Tier: t.lane.Tier, Location: t.lane.Location, Model: t.job.Model.ID,
		Result: result, Reason: reason, Detail: jobs.Cut(detail, maxDetail),
		StartedAt: t.called.UnixMicro(), EndedAt: t.answered.UnixMicro(), CallMs: &ms,
		PriceVersion: t.cfg.Catalogue.Version(),
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
