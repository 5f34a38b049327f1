package submit

import (
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/jobs/csvfile"
	"github.com/assetmill/assetmill/schemas"
)

// maxUnconfirmed bounds the jobs that are sent and not yet accepted by the topic.
const maxUnconfirmed = 10_000

// ClockSkew is how far the clocks of submitters and workers may be apart. A job may end before its submission began, by so much.
const ClockSkew = time.Hour

// continueEarlier takes over from the submission's earlier receipt, if there is one, and returns the jobs that have ended.
func (s *submission) continueEarlier(ctx context.Context) (*doneSet, error) {
	earlier, err := s.ports.Receipts.Receipt(ctx, s.receipt.Submission)
	if err != nil {
		return nil, fmt.Errorf("look for an earlier receipt: %w", err)
	}
	s.receipt.FirstSubmittedAt = s.receipt.SubmittedAt
	if first := earlier.GetFirstSubmittedAt(); first != 0 {
		s.receipt.FirstSubmittedAt = first
	}
	done, err := s.finished(ctx)
	if err != nil {
		return nil, fmt.Errorf("find the jobs that have ended: %w", err)
	}
	if earlier == nil {
		return done, nil
	}
	if sameFiles(earlier, s.receipt) {
		s.plan.settle(earlier.GetPlans(), s.receipt)
		return done, nil
	}
	ended, err := s.ports.Lineage.Ended(ctx, s.receipt.Submission, s.since())
	if err != nil {
		return nil, fmt.Errorf("count the jobs that have ended: %w", err)
	}
	if pending := earlier.GetJobs() + earlier.GetEndedBefore() - ended; pending > 0 {
		return nil, fmt.Errorf("submission %s has %d jobs of other files that have not ended: wait for them, submit those files again, or use another --submission", s.receipt.Submission, pending)
	}
	return done, nil
}

// since is when the first of the submission's jobs can have ended.
func (s *submission) since() time.Time {
	return time.UnixMicro(s.receipt.FirstSubmittedAt).Add(-ClockSkew)
}

// sameFiles reports whether two receipts are for the same content.
func sameFiles(a, b *schemas.SubmissionRow) bool {
	return slices.EqualFunc(a.GetFiles(), b.GetFiles(), func(x, y *schemas.SubmissionFile) bool { return x.GetSha256() == y.GetSha256() })
}

// finished returns the ids of the submission's jobs that have ended.
func (s *submission) finished(ctx context.Context) (*doneSet, error) {
	done := &doneSet{}
	for id, err := range s.ports.Lineage.DoneIDs(ctx, s.receipt.Submission, s.since()) {
		if err != nil {
			return nil, err
		}
		done.sorted = append(done.sorted, idKey(id))
	}
	done.build()
	return done, nil
}

// publish is the second reading: every good row's jobs that have not ended are sent.
func (s *submission) publish(ctx context.Context, done *doneSet) error {
	s.progress.Phase, s.progress.Bytes, s.progress.Rows = Publishing, 0, 0
	group, ctx := errgroup.WithContext(ctx)
	unconfirmed := make(chan func(context.Context) error, maxUnconfirmed)
	confirmed := int64(0)
	group.Go(func() error {
		for wait := range unconfirmed {
			if err := wait(ctx); err != nil {
				return err
			}
			confirmed++
		}
		return nil
	})
	group.Go(func() error {
		defer close(unconfirmed)
		return s.sendAll(ctx, done, unconfirmed)
	})
	err := group.Wait()
	*s.receipt.Published = confirmed
	before := int64(len(done.sorted)) - *s.receipt.AlreadyDone
	s.receipt.EndedBefore = &before
	s.progress.Published = confirmed
	s.report(true)
	return err
}

func (s *submission) sendAll(ctx context.Context, done *doneSet, unconfirmed chan<- func(context.Context) error) error {
	for i, f := range s.files {
		sum, _, err := s.read(ctx, f, s.defaults(), func(row *csvfile.Row, bad *csvfile.RowError) error {
			s.progress.Rows++
			defer s.report(false)
			if bad != nil || s.rejected[place{i, row.Number}] {
				return nil // counted and reported by the first reading
			}
			return s.send(ctx, row, done, unconfirmed)
		})
		switch {
		case err != nil:
			return err
		case sum != s.sums[i]:
			return errChanged(f.Name)
		}
	}
	return nil
}

// send publishes the jobs of one row.
func (s *submission) send(ctx context.Context, row *csvfile.Row, done *doneSet, unconfirmed chan<- func(context.Context) error) error {
	occurrence := 0
	if !row.HasID {
		content := contentKey(row.Jobs[0])
		if n, repeated := s.repeated[content]; repeated {
			occurrence = n
			s.repeated[content]++
		}
	}
	mode := s.plan.mode(row)
	for _, j := range row.Jobs {
		j.Mode = mode
		if !row.HasID {
			j.ID = j.DeriveID(occurrence)
		}
		if done.has(idKey(j.ID)) {
			*s.receipt.AlreadyDone++
			continue
		}
		if err := s.sendJob(ctx, j, unconfirmed); err != nil {
			return err
		}
	}
	return nil
}

func (s *submission) sendJob(ctx context.Context, j *jobs.Job, unconfirmed chan<- func(context.Context) error) error {
	wait, err := s.ports.Publisher.PublishJob(ctx, j)
	if err != nil {
		return fmt.Errorf("%s row %d: %w", j.SourceFile, j.SourceRow, err)
	}
	s.progress.Published++ // on its way; the receipt counts what is confirmed
	select {
	case unconfirmed <- wait:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
