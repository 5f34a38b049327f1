package batch

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/worker"
)

const (
	// passBlock is how many jobs are given back between two notes of how far it has come. After a crash, at most so many messages are
	// published a second time; they find their jobs held or ended.
	passBlock = 1000
	// maxBatchTries is how many calls of a job may fail before it goes online: what two batches did not make, and that is few, is worth the
	// price of a call by itself.
	maxBatchTries = 2
)

// reconcile ends or gives back every job that the output did not end, and closes the batch.
func (b *run) reconcile(ctx context.Context) error {
	found, err := b.checkpoints(ctx)
	if err != nil {
		return err
	}
	k := newBooks(b.m.Rows)
	for i, f := range found {
		if err := k.add(f); err != nil {
			return fmt.Errorf("what range %d found: %w", i+1, err)
		}
	}
	if err := b.giveBack(ctx, k); err != nil {
		return err
	}
	k.totals.addAll(b.state.Passed.Ends)
	t := &k.totals
	b.state.Totals, b.state.Phase = t, Closed
	b.log.Info("a batch is closed", zap.Int("jobs", b.m.Rows), zap.Int("done", t.Done), zap.Int("refused", t.Refused), zap.Int("failed", t.Failed),
		zap.Int("requeued", t.Requeued), zap.Int("missing", t.Missing), zap.Int("duplicated", t.Duplicated), zap.Int("orphans", t.Orphans),
		zap.Int("damaged", t.Damaged), zap.Stringer("cost_usd", t.Cost), zap.String("reason", b.state.Reason))
	return b.save(ctx)
}

// books are what all ranges found, by row.
type books struct {
	fates  []fate // of the lines that count; 0: there is none
	unmade map[int32]Unmade
	totals Totals
}

func newBooks(rows int) *books { return &books{fates: make([]fate, rows), unmade: map[int32]Unmade{}} }

// add takes in what a range found. A line that ended its job counts before one that did not; whatever comes on top of one line a job is a
// duplicate.
func (k *books) add(f *Found) error {
	unmade := f.Unmade
	for i, number := range f.Rows {
		if int(number) >= len(k.fates) || number < 0 {
			return fmt.Errorf("row %d of %d", number, len(k.fates))
		}
		now, before := fate(f.Fates[i]), k.fates[number]
		if before != 0 || now == fateRepeated {
			k.totals.Duplicated++
		}
		if now == fateUnmade {
			if len(unmade) == 0 {
				return errors.New("it is not said why a row was not made")
			}
			k.unmade[number], unmade = unmade[0], unmade[1:]
		}
		if owed(before) && now != fateRepeated {
			k.fates[number] = now
		}
	}
	t := &k.totals
	t.Orphans += f.Orphans
	t.Damaged += f.Damaged
	if f.Range.Placed != 0 {
		t.Duplicated -= len(f.Rows) // the range that left them undecided counts all of its lines
		return nil
	}
	t.Cost += f.Cost
	t.Bytes += f.Range.Length
	for _, u := range f.Undecided {
		t.Duplicated++
		t.Cost += u.Cost
	}
	return nil
}

// owed reports whether something is to be done about a job whose best line has that fate.
func owed(f fate) bool { return f == 0 || f == fateUnmade }

// giveBack ends or gives back the jobs that the output did not end, and counts the others.
func (b *run) giveBack(ctx context.Context, k *books) error {
	block := b.newBlock(ctx)
	err := entries(ctx, b.ports.Files, b.m, b.cfg.Catalogue, func(r *row) error {
		f := k.fates[r.number]
		if f == 0 {
			k.totals.Missing++
		}
		if f == fateSucceeded {
			k.totals.Online += b.cfg.Catalogue.Estimate(r.Job, jobs.TierStandard)
		}
		if !owed(f) {
			k.totals.add(f)
			return nil
		}
		if r.number < b.state.Passed.Rows {
			return nil // counted there
		}
		block.pass(r, k)
		if block.size < passBlock {
			return nil
		}
		full := block
		block = b.newBlock(ctx)
		return b.note(ctx, full, r.number+1)
	})
	if err != nil {
		return errors.Join(err, block.wait())
	}
	return b.note(ctx, block, b.m.Rows)
}

// block is jobs that are passed at a time.
type block struct {
	*run
	group *errgroup.Group
	ctx   context.Context
	size  int

	mu   sync.Mutex
	ends Ends
}

func (b *run) newBlock(ctx context.Context) *block {
	p := &block{run: b}
	p.group, p.ctx = errgroup.WithContext(ctx)
	p.group.SetLimit(maxClaims)
	return p
}

// pass deals with a job that the output did not end.
func (p *block) pass(r *row, k *books) {
	unmade, failed := k.unmade[int32(r.number)]
	missing := k.fates[r.number] == 0
	p.size++
	p.group.Go(func() (err error) {
		defer func() {
			if fault := recover(); fault != nil {
				err = fmt.Errorf("panic: %v", fault)
			}
			if err != nil {
				err = fmt.Errorf("row %d: %w", r.number, err)
			}
		}()
		if p.ctx.Err() != nil {
			return context.Cause(p.ctx)
		}
		end := conclusion(p.m, p.state, r)
		switch {
		case failed:
			unmade.explain(&end)
		case missing:
			end.Err = p.absence()
		}
		f, err := p.settle(p.ctx, end)
		if err != nil {
			return err
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.ends.add(f)
		return nil
	})
}

func (p *block) wait() error { return p.group.Wait() }

// note waits for a block, and notes that all owed jobs below a row are dealt with.
func (b *run) note(ctx context.Context, p *block, rows int) error {
	if err := p.wait(); err != nil {
		return err
	}
	b.state.Passed.Rows = rows
	b.state.Passed.addAll(p.ends)
	return b.save(ctx)
}

// explain says in a conclusion how the call went.
func (u *Unmade) explain(end *worker.Conclusion) {
	if u.Useless != nil {
		end.Answer = u.Useless
		return
	}
	end.Err = &worker.CallError{Kind: u.Kind, Reason: u.Reason, Status: u.Status, Detail: u.Detail, Lane: end.Lane}
}

// absence is how the calls went of which there is no line; nil when none was made.
func (b *run) absence() *worker.CallError {
	switch b.state.Reason {
	case reasonComplete:
		// Vertex says that all is done. It may have made, and billed, what it does not show.
		return &worker.CallError{Kind: worker.Unanswered, Detail: "the batch's output has no line of it", Lane: b.m.Lane}
	case reasonPartial, reasonFailed:
		// Not billed; but it counts, so that a job that makes its batches fail comes to an end.
		return &worker.CallError{Kind: worker.Failing, Detail: "the batch ended without it", Lane: b.m.Lane}
	default:
		return nil
	}
}

// settle ends a job, or gives it back.
func (b *run) settle(ctx context.Context, end worker.Conclusion) (fate, error) {
	called := end.Err != nil || end.Answer != nil
	if called {
		ended, spent, err := b.ports.Spine.Conclude(ctx, end)
		if ended || err != nil {
			return b.settled(ctx, end, fateFailed, b.unrecorded(ctx, end.Job, err))
		}
		end.Spent, end.Err, end.Answer = spent, nil, nil
	}
	if b.state.Then == ThenDrop {
		end.Reason, end.Detail = jobs.ReasonCancelled, "its batch was cancelled"
		_, _, err := b.ports.Spine.Conclude(ctx, end)
		return b.settled(ctx, end, fateFailed, b.unrecorded(ctx, end.Job, err))
	}
	again := *end.Job
	again.Mode = b.mode(&again, end.Spent, called)
	// The message first: a claim that is released for a job whose message is lost would be the end of the job.
	if err := b.ports.Queue.PublishAgain(ctx, &again); err != nil {
		return 0, err
	}
	return b.settled(ctx, end, fateRequeued, b.ports.Ledger.Release(ctx, end.Ticket, end.Spent))
}

// settled makes of an error that the ticket no longer holds its job what an earlier try made of the job: nobody else can have.
func (b *run) settled(ctx context.Context, end worker.Conclusion, f fate, err error) (fate, error) {
	if !errors.Is(err, worker.ErrFenced) {
		return f, err
	}
	ended, err := b.endedHere(ctx, end, func(string) bool { return true })
	if ended == 0 {
		ended = fateRequeued
	}
	return ended, err
}

// mode is how a job is to be called next.
func (b *run) mode(j *jobs.Job, spent worker.Spent, failed bool) jobs.Mode {
	switch {
	case b.state.Then == ThenOnline, failed && spent.Calls+spent.Throttled >= maxBatchTries, !j.FitsBatch(time.Now()):
		return jobs.Online
	default:
		return jobs.Batch
	}
}
