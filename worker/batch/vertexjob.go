package batch

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/worker"
)

const (
	// appearTime is how long a Vertex job may take to turn up in a list after a create whose answer is unclear. A create takes seconds; a list
	// may lag by some more; a worker may have been frozen between its last look and its create.
	appearTime = 10 * time.Minute
	// maxCreates bounds the creates of one batch whose answers are unclear. What three of them did not create will not be created.
	maxCreates = 3
	// abandonTime bounds the cancellation of a job that should not have been created.
	abandonTime = time.Minute
	// maxRunTime is how long a Vertex job may run. Vertex itself cancels after a day what is left.
	maxRunTime = jobs.BatchRunTime + jobs.BatchHandling
)

// create creates the Vertex job, once. A job that is found by its label is the batch's, whoever created it.
func (b *run) create(ctx context.Context) error {
	if b.state.Creates > 0 {
		found, err := b.ports.Vertex.Find(ctx, b.m.Lane, b.m.ID)
		switch {
		case err != nil:
			return fmt.Errorf("look for the batch's job: %w", err)
		case len(found) > 0:
			return b.adopt(ctx, found[0])
		case b.unclear.age(b.m.ID, b.state.Creates) < appearTime:
			return nil // it may still turn up
		}
	}
	if given, err := b.giveUpCreating(ctx); given || err != nil {
		return err
	}
	// Counted before it is made: whoever goes on from here must know of it.
	b.state.Creates++
	if err := b.save(ctx); err != nil {
		return err
	}
	if err := b.ports.Ledger.Confirm(ctx, b.ticket); err != nil {
		return err
	}
	job, err := b.ports.Vertex.Create(ctx, worker.BatchRequest{
		ID: b.m.ID, Lane: b.m.Lane, Input: b.ports.Files.URI(inputName(b.m.ID)), OutputPrefix: b.ports.Files.URI(outputDir(b.m.ID)),
	})
	switch {
	case err != nil:
		return b.notCreated(ctx, err)
	case job.Name == "":
		return errors.New("Vertex created a job and did not say its name; it is looked for")
	}
	b.log.Info("a batch's job is created", zap.String("job", job.Name), zap.Int("jobs", b.m.Rows))
	if err := b.adopt(ctx, job); err != nil {
		return errors.Join(err, b.abandon(ctx, job))
	}
	return nil
}

// giveUpCreating ends a batch for which Vertex has no job, when it is not worth another try.
func (b *run) giveUpCreating(ctx context.Context) (given bool, _ error) {
	wish, err := readWish(ctx, b.ports.Files, b.m.ID)
	switch {
	case err != nil:
		return false, err
	case wish != "":
		return true, b.endWithout(ctx, reasonCancelled, "cancelled before Vertex had a job of it", wish)
	case b.state.Creates >= maxCreates:
		return true, b.endWithout(ctx, reasonFailed, fmt.Sprintf("Vertex created no job in %d tries", b.state.Creates), b.cfg.Spill)
	case time.Since(b.m.SealedAt) > b.cfg.QueueTime: // days, beside which clocks that are minutes apart don't matter
		return true, b.endWithout(ctx, reasonStuck, fmt.Sprintf("Vertex took no job for %s", b.cfg.QueueTime), b.cfg.Spill)
	default:
		return false, nil
	}
}

// notCreated decides what an error of a create means.
func (b *run) notCreated(ctx context.Context, err error) error {
	var ce *worker.CallError
	if !errors.As(err, &ce) {
		return err
	}
	switch ce.Kind {
	case worker.Rejected, worker.Denied:
		return b.endWithout(ctx, reasonFailed, "Vertex refused the batch: "+ce.Error(), b.cfg.Spill)
	case worker.Unanswered, worker.Failing:
		b.log.Warn("nobody knows whether a batch's job was created; it is looked for", zap.Error(ce))
		return nil
	default: // certainly not
		b.state.Creates--
		return errors.Join(ce, b.save(ctx))
	}
}

// endWithout ends a batch for which Vertex has no job.
func (b *run) endWithout(ctx context.Context, reason, detail string, then Then) error {
	b.log.Error("a batch comes to nothing", zap.String("reason", reason), zap.String("detail", detail), zap.String("then", string(then)))
	b.state.Reason, b.state.Detail, b.state.Then = reason, detail, then
	return b.startCollecting(ctx)
}

// adopt takes a job as the batch's.
func (b *run) adopt(ctx context.Context, job worker.VertexBatch) error {
	b.unclear.forget(b.m.ID)
	b.state.Job, b.state.Phase = job.Name, Running
	b.see(job)
	return b.save(ctx)
}

// abandon cancels a job that this worker created after it had been taken for dead, if whoever went on does not look for it.
func (b *run) abandon(ctx context.Context, job worker.VertexBatch) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abandonTime) // the step's own time may be over
	defer cancel()
	now, err := readState(ctx, b.ports.Files, b.m.ID)
	if err != nil || now.Phase == Gathered || now.Job == job.Name {
		return err
	}
	b.log.Error("a job was created for a batch that has gone on without it; it is cancelled", zap.String("job", job.Name))
	return b.ports.Vertex.Cancel(ctx, b.m.Lane, job.Name)
}

// see notes what Vertex says of the batch's job, and reports whether it is news.
func (b *run) see(job worker.VertexBatch) (news bool) {
	s := b.state
	news = s.JobState != string(job.State) || !s.Started.Equal(job.Started)
	s.JobState, s.Made = string(job.State), job.Succeeded
	s.Queued, s.Started, s.Ended = job.Created, job.Started, job.Ended
	if job.OutputDir != "" {
		s.Output = job.OutputDir
	}
	return news
}

// watch looks at the Vertex job, and gives it up when its time is over or its owner wants its end.
func (b *run) watch(ctx context.Context) error {
	job, err := b.look(ctx)
	if err != nil {
		return err
	}
	if _, err := b.endOthers(ctx); err != nil {
		return err
	}
	news := b.see(job)
	if job.State.Terminal() {
		b.ended(job)
		return b.startCollecting(ctx)
	}
	if b.state.GivenUp == "" {
		given, err := b.giveUp(ctx, job)
		if err != nil {
			return err
		}
		news = news || given
	}
	if news {
		// Before the job is cancelled: one that is cancelled for no known reason would be taken for somebody else's doing.
		if err := b.save(ctx); err != nil {
			return err
		}
	}
	if b.state.GivenUp == "" {
		return nil
	}
	return b.ports.Vertex.Cancel(ctx, b.m.Lane, job.Name) // asking again does no harm
}

// look asks Vertex for the batch's job. Vertex lets nobody delete a job that runs: one that it no longer knows has ended.
func (b *run) look(ctx context.Context) (worker.VertexBatch, error) {
	job, err := b.ports.Vertex.Get(ctx, b.m.Lane, b.state.Job)
	if err == nil {
		return job, nil
	}
	err = fmt.Errorf("look at %s: %w", b.state.Job, err)
	var ce *worker.CallError
	if !errors.As(err, &ce) || ce.Status != http.StatusNotFound {
		return job, err
	}
	found, findErr := b.ports.Vertex.Find(ctx, b.m.Lane, b.m.ID)
	if findErr != nil || slices.ContainsFunc(found, func(j worker.VertexBatch) bool { return j.Name == b.state.Job }) {
		return job, errors.Join(err, findErr)
	}
	return worker.VertexBatch{
		Name: b.state.Job, State: worker.BatchFailed, Created: b.state.Queued, Started: b.state.Started, Succeeded: b.state.Made,
		Error: "somebody deleted the job at Vertex",
	}, nil
}

// endOthers has Vertex jobs cancelled that this batch should not have: their rows cost the same again. There can be some only when more
// creates were made than jobs are known. It reports whether any has not ended yet. What they made is collected with the rest.
func (b *run) endOthers(ctx context.Context) (running bool, err error) {
	known := 0
	if b.state.Job != "" {
		known = 1
	}
	if b.state.Creates <= known {
		return false, nil
	}
	found, err := b.ports.Vertex.Find(ctx, b.m.Lane, b.m.ID)
	if err != nil {
		return false, fmt.Errorf("look for the batch's jobs: %w", err)
	}
	for _, other := range found {
		if other.Name == b.state.Job || other.State.Terminal() {
			continue
		}
		running = true
		if !slices.Contains(b.state.Surplus, other.Name) {
			b.log.Error("a batch has a Vertex job too many; it is cancelled", zap.String("job", b.state.Job), zap.String("other", other.Name))
			b.state.Surplus = append(b.state.Surplus, other.Name) // for people; saved with what comes next
		}
		if err := b.ports.Vertex.Cancel(ctx, b.m.Lane, other.Name); err != nil {
			return true, fmt.Errorf("cancel %s: %w", other.Name, err)
		}
	}
	return running, nil
}

// giveUp decides whether a job that goes on is to be cancelled, and what becomes of its jobs then.
func (b *run) giveUp(ctx context.Context, job worker.VertexBatch) (given bool, _ error) {
	wish, err := readWish(ctx, b.ports.Files, b.m.ID)
	if err != nil {
		return false, err
	}
	s := b.state
	switch {
	case wish != "":
		s.GivenUp, s.Detail, s.Then = reasonCancelled, "cancelled by its owner", wish
	case job.Started.IsZero() && over(job.Created, b.cfg.QueueTime):
		s.GivenUp, s.Detail, s.Then = reasonStuck, fmt.Sprintf("Vertex did not begin within %s", b.cfg.QueueTime), b.cfg.Spill
	case over(job.Started, maxRunTime):
		s.GivenUp, s.Detail, s.Then = reasonStuck, fmt.Sprintf("Vertex did not end within %s", maxRunTime), b.cfg.Spill
	default:
		return false, nil
	}
	b.log.Warn("a batch's job is given up", zap.String("job", job.Name), zap.String("reason", s.GivenUp), zap.String("detail", s.Detail), zap.String("then", string(s.Then)))
	return true, nil
}

// over reports whether a time is over that began at a moment by Vertex's clock; never when it has not begun.
func over(began time.Time, bound time.Duration) bool {
	return !began.IsZero() && time.Since(began) > bound
}

// endings say of the states in which Vertex jobs end why they did.
var endings = map[worker.BatchState]string{
	worker.BatchSucceeded: reasonComplete, worker.BatchPartly: reasonPartial, worker.BatchExpired: reasonExpired,
	worker.BatchCancelled: reasonCancelled, worker.BatchFailed: reasonFailed,
}

// ended notes how the Vertex job ended, and what becomes of rows that it did not make.
func (b *run) ended(job worker.VertexBatch) {
	s := b.state
	s.Reason = endings[job.State]
	if s.GivenUp != "" && job.State != worker.BatchSucceeded {
		s.Reason = s.GivenUp
	}
	if job.Error != "" {
		s.Detail = job.Error
	}
	if s.Then == "" {
		switch job.State {
		case worker.BatchSucceeded, worker.BatchPartly:
			s.Then = ThenBatch
		default: // also when somebody with access to the project cancelled it: nobody said that the jobs are not wanted
			s.Then = b.cfg.Spill
		}
	}
	log := b.log.Info
	if s.Reason != reasonComplete {
		log = b.log.Warn
	}
	log("a batch's job has ended", zap.String("job", job.Name), zap.String("state", string(job.State)), zap.String("reason", s.Reason), zap.String("detail", s.Detail))
}
