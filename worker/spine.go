package worker

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/assetmill/assetmill/internal/retry"
	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
)

// process is the spine: the way of one message, in the order of the data flow. Each step either leads to the next or to a
// verdict; every verdict but Ack and Dead leaves the message to be delivered again.
func (t *task) process() jobs.Verdict {
	if v := t.admit(jobs.Online, t.claim); v.Action != 0 {
		return v
	}
	if err := t.call(); err != nil {
		return t.giveUp(err)
	}
	return t.finish()
}

// claim asks for the right to spend money on the job.
func (t *task) claim(j *jobs.Job) (Standing, error) {
	return t.ports.Ledger.Claim(t.settle, j.ID, j.Digest())
}

// admit takes a message as far as a claim that is this worker's. A verdict says that the message goes no further.
func (t *task) admit(mode jobs.Mode, claim func(*jobs.Job) (Standing, error)) (v jobs.Verdict) {
	if reason, err := t.decode(mode); err != nil {
		return t.bury(reason, err)
	}
	standing, err := claim(t.job)
	if errors.Is(err, ErrNoLane) {
		return t.turnAway(err) // a batch asks for its lane before it claims
	}
	if err != nil {
		return t.retry("the ledger could not be asked", err, troublePause)
	}
	switch standing.State {
	case Done:
		t.tally.change(func(s *Stats) { s.Repeated++ })
		return t.announce(t.repeated(standing.Record))
	case Busy:
		// No news: each job of a batch whose message was not acknowledged in time comes back like this until the batch is closed.
		return t.again(zap.DebugLevel, "the job is held by "+standing.Holder, nil, busyPause)
	case Conflict:
		return t.bury(jobs.ReasonIDConflict, errIDConflict)
	}
	t.ticket, t.spent = standing.Ticket, standing.Spent
	t.unsure = leftUnsure(t.spent)
	if standing.Abandoned {
		err = t.inherit()
	}
	if err == nil {
		err = t.lookAgain()
	}
	if err != nil {
		return t.giveUp(err)
	}
	return v
}

// finish makes the job's end durable and known: asset, ledger, lineage, result.
func (t *task) finish() jobs.Verdict {
	if err := t.store(); err != nil {
		return t.giveUp(err)
	}
	end := t.end()
	if err := t.ports.Ledger.Finish(t.settle, t.ticket, end); err != nil {
		// Fenced: another worker has the job, and what is here must not be told. Otherwise the record may be written or
		// not; the next delivery finds out.
		if errors.Is(err, ErrFenced) {
			t.tally.change(func(s *Stats) { s.Fenced++ })
		}
		return t.retry("the job's end could not be recorded", err, troublePause)
	}
	t.tally.ended(t, jobs.Reason(end.Generation.GetReason()))
	return t.announce(end)
}

var errIDConflict = errors.New("the id belongs to a job with other content: give this one an id of its own, or publish the first one's content unchanged")

// leftUnsure reports whether a call for a job may have left an image that nobody has recorded: its answer was lost, or there was no time
// to store what it brought. That another call came after it changes nothing: an image may come late.
func leftUnsure(s Spent) bool {
	return slices.ContainsFunc(s.Attempts, func(a *schemas.AttemptRow) bool {
		return a.GetResult() == resultUnknown || a.GetResult() == resultImage
	})
}

// task is one message on its way along the spine.
type task struct {
	*run
	delivery *jobs.Delivery
	received time.Time

	message *schemas.Job // as decoded, valid or not; nil when it could not be decoded
	job     *jobs.Job    // set once it is valid
	ticket  Ticket
	spent   Spent

	lane     Lane      // of the last call
	batch    string    // id of the batch that made the call; usually empty
	unsure   bool      // whether a call may have left an image that nobody has recorded
	called   time.Time // when the last call began
	calling  bool      // whether it is under way
	answered time.Time // when its answer was complete
	answer   *Answer   // nil when the job ends without one
	stored   time.Time
	asset    Asset
	failure  *failure // set when the job ends without an answer that counts
	ended    bool     // whether the job has ended here, and not before
}

// failure is why a job ends without an answer that counts.
type failure struct {
	reason jobs.Reason
	detail string
}

// decode turns the message into a valid job.
func (t *task) decode(mode jobs.Mode) (jobs.Reason, error) {
	m := &schemas.Job{}
	if err := schemas.Unmarshal(t.delivery.Data, m); err != nil {
		return jobs.ReasonInvalidMessage, err
	}
	t.message = m
	job, err := t.cfg.Catalogue.Parse(m)
	if err != nil {
		return jobs.ReasonInvalidJob, err
	}
	if job.Mode != mode {
		// The subscriptions' filters go by the attribute alone. To serve a batch job online would cost twice what its producer asked
		// for, and to serve an online job in a batch could take days.
		return jobs.ReasonInvalidJob, fmt.Errorf("mode is %q, but the message attribute mode says otherwise: set the attribute mode=%s", job.Mode, job.Mode)
	}
	t.job = job
	return "", nil
}

// inherit takes stock of what a worker that is taken for dead left behind. If it stored an asset, that is the job's, and nothing
// more is paid. If not, it may have made a call all the same.
func (t *task) inherit() error {
	asset, found, err := t.ports.Assets.Find(t.settle, t.job)
	if err != nil {
		return err
	}
	t.called, t.answered = time.Now(), time.Now()
	result, reason := resultUnknown, reasonAbandoned
	if t.unsure = !found; found {
		result, reason = resultImage, reasonAdopted
		t.adopt(asset, "adopted from a worker that did not come back")
	}
	t.tally.change(func(s *Stats) { s.TakenOver++ })
	// Workers that died one after the other count one by one: a job that kills its workers must come to an end.
	for range t.spent.Abandoned - 1 {
		t.spendAbandoned(resultUnknown, reasonAbandoned)
	}
	t.spendAbandoned(result, reason)
	t.spent.Abandoned = 0
	return nil
}

// adopt ends the job with an asset that is stored already.
func (t *task) adopt(asset Asset, detail string) {
	t.asset, t.stored = asset, time.Now()
	t.answer = &Answer{Reason: jobs.ReasonImage, Detail: detail, Usage: t.job.EstimatedUsage(), UsageMissing: true}
	t.tally.change(func(s *Stats) { s.Adopted++ })
}

func (t *task) spendAbandoned(result, reason string) {
	row := t.attempt(result, reason, "the call of a worker that did not come back; nobody knows what it cost")
	t.spend(row, t.estimate(Lane{}), true)
}

// store makes the image durable, if there is one. The image's memory is free afterwards.
func (t *task) store() error {
	var put func() (Asset, error)
	switch {
	case t.answer == nil || t.asset.URI != "":
		return nil
	case t.answer.Image != nil:
		defer t.answer.Image.Blob.Release()
		put = func() (Asset, error) { return t.ports.Assets.Store(t.settle, t.job, t.answer.Image) }
	case t.answer.Written != "":
		put = func() (Asset, error) { return t.ports.Assets.Take(t.settle, t.job, t.answer.Written) }
	default:
		return nil
	}
	for {
		asset, err := put()
		if err == nil {
			t.asset, t.stored = asset, time.Now()
			break
		}
		if errors.Is(err, ErrUnusable) {
			t.failure = &failure{jobs.ReasonBadAnswer, err.Error()}
			return nil
		}
		// The image is paid for. Whatever is wrong with the storage, no other may be bought meanwhile; and as long as this
		// worker may settle things, somebody may mend it.
		t.halt(fmt.Errorf("images can't be stored: %w", err))
		if retry.Sleep(t.settle, troublePause) != nil {
			return err
		}
	}
	if t.asset.Existing {
		t.tally.change(func(s *Stats) { s.Discarded++ })
		t.cfg.Log.Warn("an asset was there already; the new answer is discarded", t.fields(zap.String("asset", t.asset.URI))...)
	}
	return nil
}

// announce makes a job's end known: its rows in lineage, then the result event. Only after both may the message go.
func (t *task) announce(end Record) jobs.Verdict {
	for _, row := range end.Attempts {
		if err := t.ports.Lineage.AppendAttempt(t.settle, row); err != nil {
			return t.unrecorded("an attempt could not be recorded", err)
		}
	}
	if err := t.ports.Lineage.AppendGeneration(t.settle, end.Generation); err != nil {
		return t.unrecorded("the outcome could not be recorded", err)
	}
	t.rowStored(end.Generation)
	if err := t.ports.Results.Publish(t.settle, t.result(end.Generation)); err != nil {
		return t.retry("the result could not be announced", err, troublePause)
	}
	t.cfg.Log.Debug("job ended", t.fields(zap.String("outcome", end.Generation.GetOutcome()), zap.String("reason", end.Generation.GetReason()))...)
	return jobs.Verdict{Action: jobs.Ack}
}

// unrecorded decides what becomes of a message whose row could not be stored. A row that can never be stored would come back for
// ever: its message is kept as a dead letter, and the ledger knows the job's end.
func (t *task) unrecorded(what string, err error) jobs.Verdict {
	if !errors.Is(err, ErrRowRefused) {
		return t.retry(what, err, troublePause)
	}
	t.cfg.Log.Error(what, t.fields(zap.Error(err))...)
	return jobs.Verdict{Action: jobs.Dead, Reason: jobs.ReasonRowRefused, Detail: jobs.Cut(err.Error(), maxDetail)}
}

// bury ends a message that is no valid job, or whose id belongs to another: a row and an event of its own, then the
// dead-letter topic. It never touches the ledger, so that the producer can mend the job and publish it under the same id.
func (t *task) bury(reason jobs.Reason, cause error) jobs.Verdict {
	detail := jobs.Cut(cause.Error(), maxDetail)
	if id := t.message.GetId(); id != "" {
		detail = jobs.Cut(fmt.Sprintf("%s (its id: %s)", detail, jobs.Shorten(id)), maxDetail)
	}
	row := t.invalidRow(reason, detail)
	if v := t.announce(Record{Generation: row}); v.Action != jobs.Ack {
		return v // not announced yet, or dead already
	}
	t.tally.ended(t, reason)
	t.cfg.Log.Warn("a message was given up", t.fields(zap.String("reason", string(reason)), zap.String("recorded_as", row.GetJobId()))...)
	return jobs.Verdict{Action: jobs.Dead, Reason: reason, Detail: detail}
}

// giveUp releases the claim, so that any worker can go on at once with what was spent so far, and gives the message back.
func (t *task) giveUp(cause error) jobs.Verdict {
	after := troublePause
	var wait errWait
	if errors.As(cause, &wait) {
		after = wait.after
	}
	if err := t.ports.Ledger.Release(t.settle, t.ticket, t.spent); err != nil {
		cause = errors.Join(cause, err)
	} else if errors.Is(cause, ErrNoLane) {
		return t.turnAway(cause)
	}
	return t.retry("the job is given back", cause, after)
}

// turnAway ends a message whose job no lane of this worker can serve. The claim is released, so that the message can be sent again
// from the dead letters once there is a lane; whoever waits for the job is told.
func (t *task) turnAway(cause error) jobs.Verdict {
	detail := jobs.Cut(cause.Error(), maxDetail)
	row := t.row()
	row.Outcome, row.Reason, row.Detail = string(jobs.ReasonNoLane.Outcome()), string(jobs.ReasonNoLane), detail
	if err := t.ports.Results.Publish(t.settle, t.result(row)); err != nil {
		return t.retry("the result could not be announced", err, troublePause)
	}
	t.tally.change(func(s *Stats) { s.TurnedAway++ })
	t.cfg.Log.Warn("no lane for a job", t.fields(zap.String("detail", detail))...)
	return jobs.Verdict{Action: jobs.Dead, Reason: jobs.ReasonNoLane, Detail: detail}
}

func (t *task) retry(what string, cause error, after time.Duration) jobs.Verdict {
	if cause != nil && t.receiving.Err() == nil {
		return t.again(zap.WarnLevel, what, cause, after)
	}
	return t.again(zap.InfoLevel, what, cause, after)
}

// again gives the message back.
func (t *task) again(level zapcore.Level, what string, cause error, after time.Duration) jobs.Verdict {
	t.tally.change(func(s *Stats) { s.Retried++ })
	t.cfg.Log.Log(level, what, t.fields(zap.Error(cause))...)
	return jobs.Verdict{Action: jobs.Retry, Detail: what, After: after}
}

// fields are what every log line of a task begins with. Never the prompt.
func (t *task) fields(more ...zap.Field) []zap.Field {
	fields := []zap.Field{zap.String("message_id", t.delivery.ID)}
	if t.job != nil {
		fields = append(fields, zap.String("job_id", t.job.ID), zap.String("submission", t.job.Submission))
	}
	if id := t.traceID(); id != "" {
		fields = append(fields, zap.String("trace_id", id))
	}
	return append(fields, more...)
}
