package batch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/worker"
)

// passBlock is how many rows are reconciled between two notes of how far it has come. After a crash, at most so many messages are
// published a second time; they find their jobs held or ended.
const passBlock = 1000

// reconcile looks whether all ranges are collected. If so, every job of the batch has ended or is given back, and the batch is closed.
func (b *run) reconcile(ctx context.Context) error {
	missing, err := b.missingRanges(ctx)
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		ask := b.state.Looks%askAgain == 0
		b.state.Looks++
		if ask {
			if err := b.ask(ctx, missing); err != nil {
				return err
			}
		}
		return b.save(ctx)
	}
	books, err := b.readBooks(ctx)
	if err != nil {
		return err
	}
	if err := b.giveBack(ctx, books); err != nil {
		return err
	}
	b.state.Totals, b.state.Phase = &books.totals, Closed
	b.log.Info("a batch is closed", zap.Int("jobs", b.m.Rows), zap.Int("done", books.totals.Done), zap.Int("refused", books.totals.Refused),
		zap.Int("failed", books.totals.Failed), zap.Int("requeued", books.totals.Requeued), zap.Int("missing", books.totals.Missing),
		zap.Int("duplicated", books.totals.Duplicated), zap.Int("orphans", books.totals.Orphans), zap.Stringer("cost_usd", books.totals.Cost))
	return b.save(ctx)
}

// missingRanges returns the numbers of the ranges without a checkpoint.
func (b *run) missingRanges(ctx context.Context) ([]int, error) {
	files, err := b.files.List(ctx, rangeDir(b.m.ID))
	if err != nil {
		return nil, fmt.Errorf("list the ranges: %w", err)
	}
	there := map[string]bool{}
	for _, f := range files {
		there[f.Name] = true
	}
	var missing []int
	for n := 1; n <= len(b.state.Ranges); n++ {
		if !there[rangeName(b.m.ID, n)] {
			missing = append(missing, n)
		}
	}
	return missing, nil
}

// books are what all ranges found, by row.
type books struct {
	fates  []byte // 0: no line
	failed map[int32]Failure
	totals Totals
}

func (b *run) readBooks(ctx context.Context) (*books, error) {
	k := &books{fates: make([]byte, b.m.Rows), failed: map[int32]Failure{}}
	for n := range b.state.Ranges {
		data, _, err := b.files.Read(ctx, rangeName(b.m.ID, n+1))
		if err != nil {
			return nil, fmt.Errorf("read what range %d found: %w", n+1, err)
		}
		var f Found
		if err := json.Unmarshal(data, &f); err != nil {
			return nil, fmt.Errorf("read what range %d found: %w", n+1, err)
		}
		if err := k.add(&f); err != nil {
			return nil, fmt.Errorf("what range %d found: %w", n+1, err)
		}
	}
	return k, nil
}

// add takes in what a range found. A line that ended a job counts before one that failed; whatever comes on top of that is a duplicate.
func (k *books) add(f *Found) error {
	if len(f.Rows) != len(f.Fates) {
		return fmt.Errorf("%d rows have %d fates", len(f.Rows), len(f.Fates))
	}
	failures := f.Failed
	for i, number := range f.Rows {
		if int(number) >= len(k.fates) || number < 0 {
			return fmt.Errorf("row %d of %d", number, len(k.fates))
		}
		fate, before := f.Fates[i], k.fates[number]
		if before != 0 {
			k.totals.Duplicated++
		}
		if fate == fateFailed {
			if len(failures) == 0 {
				return errors.New("a failed row has no failure")
			}
			k.failed[number], failures = failures[0], failures[1:]
		}
		if before == 0 || before == fateFailed || before == fateRepeated && fate != fateFailed {
			k.fates[number] = fate
		}
	}
	k.totals.Orphans += f.Orphans
	k.totals.Damaged += f.Damaged
	k.totals.Cost += f.Cost
	k.totals.Bytes += f.Range.Length
	return nil
}

// giveBack gives back, or ends, every job that the batch did not end, and counts the others.
func (b *run) giveBack(ctx context.Context, k *books) error {
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(maxClaims)
	next := 0
	err := entries(ctx, b.files, b.m, b.cfg.Catalogue, func(r *row) error {
		if gctx.Err() != nil {
			return context.Cause(gctx)
		}
		k.count(b, r)
		if r.number >= b.state.Passed && !over(k.fates[r.number]) {
			group.Go(func() error { return b.pass(gctx, k, r) })
		}
		if next = r.number + 1; next%passBlock != 0 || next <= b.state.Passed {
			return nil
		}
		err := group.Wait()
		group, gctx = errgroup.WithContext(ctx)
		group.SetLimit(maxClaims)
		if err != nil {
			return err
		}
		b.state.Passed = next
		return b.save(ctx)
	})
	return errors.Join(err, group.Wait())
}

// over reports whether nothing is to be done about a row of this fate any more.
func over(fate byte) bool { return fate != 0 && fate != fateFailed }

// count takes a row into the totals.
func (k *books) count(b *run, r *row) {
	t := &k.totals
	switch k.fates[r.number] {
	case fateSucceeded:
		t.Done++
		t.Online += b.cfg.Catalogue.Estimate(r.Job, jobs.TierStandard)
	case fateRefused:
		t.Refused++
	case fateRejected:
		t.Failed++
	case fateRepeated: // ended elsewhere
	default:
		if k.fates[r.number] == 0 {
			t.Missing++
		}
		if b.state.Then == ThenDrop {
			t.Failed++
		} else {
			t.Requeued++
		}
	}
}

// pass deals with a job that the batch did not end.
func (b *run) pass(ctx context.Context, k *books, r *row) error {
	end := conclusion(b.m, b.state, r)
	if b.state.Then == ThenDrop {
		end.Reason, end.Detail = jobs.ReasonCancelled, "its batch was cancelled"
		_, _, err := b.spine.Conclude(ctx, end)
		return ours(err)
	}
	spent := r.Spent
	if end.Err = b.failure(k, r); end.Err != nil {
		ended, after, err := b.spine.Conclude(ctx, end)
		if ended || err != nil {
			return ours(err)
		}
		spent = after
	}
	again := *r.Job
	if again.Mode = jobs.Batch; b.state.Then == ThenOnline || !again.FitsBatch(time.Now()) {
		again.Mode = jobs.Online
	}
	// The message first: a claim that is released for a job whose message is lost would be the end of the job.
	if err := b.queue.PublishAgain(ctx, &again); err != nil {
		return err
	}
	return ours(b.ledger.Release(ctx, r.Ticket, spent))
}

// failure is how the row's call failed; nil when there was none.
func (b *run) failure(k *books, r *row) *worker.CallError {
	if f, ok := k.failed[int32(r.number)]; ok && k.fates[r.number] == fateFailed {
		return &worker.CallError{Kind: f.Kind, Status: f.Status, Detail: f.Detail, Lane: b.m.Lane}
	}
	if b.state.Reason == "complete" || b.state.Reason == "partial" {
		// Vertex says that it is done. It may have made, and billed, what it does not show.
		return &worker.CallError{Kind: worker.Unanswered, Detail: "the batch's output has no line of it", Lane: b.m.Lane}
	}
	return nil
}

// ours drops the error of a job that is not the batch's any more: an earlier pass has dealt with it.
func ours(err error) error {
	if errors.Is(err, worker.ErrFenced) {
		return nil
	}
	return err
}
