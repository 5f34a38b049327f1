package batch_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
	"github.com/assetmill/assetmill/worker"
	"github.com/assetmill/assetmill/worker/batch"
	"github.com/assetmill/assetmill/worker/batch/batchtest"
)

// resume publishes the hand-off of a batch again.
func (w *world) resume(id string) {
	w.t.Helper()
	if resumed, err := batch.Resume(w.t.Context(), w.queue, w.status(id)); err != nil || !resumed {
		w.t.Errorf("resume: %v, %v", resumed, err)
	}
}

// purger takes all hand-offs away from the workers as soon as their batch has come so far.
type purger struct {
	*world
	when   func(*batch.Status) bool
	ranges bool         // whether those of ranges go as well
	purged atomic.Int64 // hand-offs of batches
	over   atomic.Bool  // nothing is purged any more
}

func (p *purger) purge(d *jobs.Delivery) bool {
	h := &schemas.BatchHandoff{}
	if p.over.Load() || schemas.Unmarshal(d.Data, h) != nil || h.GetBatchId() == "" || h.GetRange() > 0 && !p.ranges {
		return false
	}
	s := p.status(h.GetBatchId())
	if s == nil || !p.when(s) {
		return false
	}
	if h.GetRange() == 0 {
		p.purged.Add(1)
	}
	return true
}

// Whatever state a batch is in when its hand-off is lost, nothing goes on until it is resumed; then it ends as if nothing had happened.
func TestALostHandoffIsResumed(t *testing.T) {
	t.Parallel()
	in := func(p batch.Phase) func(*batch.Status) bool {
		return func(s *batch.Status) bool { return s.Phase == p }
	}
	half := batchtest.Plan{End: worker.BatchPartly, Part: 0.5}
	for _, tt := range []struct {
		name   string
		when   func(*batch.Status) bool
		ranges bool
		plan   batchtest.Plan // of the first job
		fault  func(op, subject string, n int) fault
		phase  batch.Phase
		made   int // jobs that the batch makes itself
	}{
		{"sealed", in(batch.Gathered), false, batchtest.Plan{}, nil, batch.Gathered, 20},
		{"a create without an answer", func(s *batch.Status) bool { return s.Creates > 0 }, false, batchtest.Plan{}, faults("create", failAfter), batch.Gathered, 20},
		{"a create that never was", func(s *batch.Status) bool { return s.Creates > 0 }, false, batchtest.Plan{}, faults("create", failBefore), batch.Gathered, 20},
		{"in the queue", in(batch.Running), false, batchtest.Plan{Queue: time.Hour}, nil, batch.Running, 20},
		{"running", func(s *batch.Status) bool { return !s.Started.IsZero() }, false, batchtest.Plan{Run: time.Hour}, nil, batch.Running, 20},
		{"collecting", in(batch.Collecting), false, batchtest.Plan{}, nil, batch.Collecting, 20},
		{"collecting, and the ranges are lost too", in(batch.Collecting), true, batchtest.Plan{}, nil, batch.Collecting, 20},
		{"closing", in(batch.Reconciling), true, half, faults("publish again", failBefore), batch.Reconciling, 10},
		{"closing, when some jobs are given back", in(batch.Reconciling), true, half, faults("publish again", fine, failAfter), batch.Reconciling, 10},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			inWorld(t, func(t *testing.T, w *world) {
				w.run.RangeBytes = 500
				w.vertex.Plan = firstJob(tt.plan)
				loss := &purger{world: w, when: tt.when, ranges: tt.ranges}
				p := w.open("w1", tt.fault)
				p.purge = loss.purge
				p.begin()
				w.publishMany(20)
				w.await(func() bool { return loss.purged.Load() > 0 })
				time.Sleep(3 * time.Hour)
				id := w.batchID()
				s := w.status(id)
				if s.Phase != tt.phase || w.queue.Handoffs.Held() != 0 || !s.StandsStill(time.Now()) {
					t.Fatalf("the batch is %s, and %d hand-offs are left; it stands still: %v", s.Phase, w.queue.Handoffs.Held(), s.StandsStill(time.Now()))
				}
				loss.over.Store(true)
				w.resume(id)
				time.Sleep(time.Minute)
				if s := w.status(id); s.StandsStill(time.Now()) {
					t.Errorf("it stands still since %s", s.LastStep())
				}
				made := w.closeBooks(12*time.Hour, prompts(20), p)[string(jobs.ReasonImage)]
				if n := len(w.vertex.Jobs(id)); made != 20 || n != 1 {
					t.Errorf("%d images, %d Vertex jobs of the batch", made, n)
				}
				w.madeOnce()
				i := slices.IndexFunc(w.closed(), func(r *schemas.BatchRow) bool { return r.GetBatchId() == id })
				if c := w.closed()[max(i, 0)]; i < 0 || c.GetDone() != int64(tt.made) || c.GetRequeued() != int64(20-tt.made) || c.GetDuplicated() != 0 {
					t.Errorf("closed: %v", c)
				}
				if resumed, err := batch.Resume(t.Context(), w.queue, w.status(id)); resumed || err != nil || w.queue.Handoffs.Held() != 0 {
					t.Errorf("a closed batch: %v, %v", resumed, err)
				}
			})
		})
	}
}

// madeOnce checks that each of the jobs of publishMany(20) was made once, wherever.
func (w *world) madeOnce() {
	w.t.Helper()
	for id, prompt := range prompts(20) {
		if n := w.vertex.Made(prompt) + w.online.Calls(id); n != 1 {
			w.t.Errorf("%s was made %d times", id, n)
		}
	}
}

// However often a batch is resumed whose hand-off lives, it waits for its output as long as otherwise before it pays for the rows again.
func TestManyHandoffsDoNotHurryABatch(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		var hidden atomic.Pointer[[]string]
		w.vertex.Ended = func(files []string) {
			if hidden.CompareAndSwap(nil, &files) {
				for _, f := range files {
					w.files.Move(f, "hidden/"+f)
				}
			}
		}
		workers := []*process{w.start("w1", nil), w.start("w2", nil)}
		w.publishMany(20)
		w.await(func() bool { return hidden.Load() != nil })
		for range 9 {
			w.resume(w.batchID())
			time.Sleep(time.Second)
		}
		time.Sleep(5 * time.Minute)
		for _, f := range *hidden.Load() {
			w.files.Move("hidden/"+f, f)
		}
		w.closeBooks(5*time.Hour, prompts(20), workers...)
		if c := w.closed(); len(c) != 1 || c[0].GetDone() != 20 {
			t.Errorf("closed: %v", c)
		}
		w.madeOnce()
	})
}

// A batch that waits for days doesn't look as if it stood still, and isn't written at each look.
func TestABatchThatWaitsDoesNotStandStill(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.vertex.Plan = firstJob(batchtest.Plan{Queue: 10 * time.Hour})
		var saved atomic.Int64
		p := w.start("w1", func(op, subject string, _ int) fault {
			if op == "swap" && strings.HasSuffix(subject, "state.json") {
				saved.Add(1)
			}
			return fine
		})
		w.publishMany(20)
		w.await(func() bool { return len(w.vertex.Jobs("")) == 1 })
		before := saved.Load()
		for range 8 {
			time.Sleep(time.Hour)
			if s := w.status(w.batchID()); s.Phase != batch.Running || s.StandsStill(time.Now()) || time.Since(s.LastStep()) > 6*time.Minute {
				t.Errorf("%s; the last step was %s ago", s.Phase, time.Since(s.LastStep()))
			}
		}
		if n := saved.Load() - before; n > 8*13 {
			t.Errorf("the state was written %d times in 8 hours", n)
		}
		w.closeBooks(12*time.Hour, prompts(20), p)
		w.madeOnce()
	})
}

// failing is a topic that takes nothing.
type failing struct{ err error }

func (f failing) PublishHandoff(context.Context, *schemas.BatchHandoff) error { return f.err }

func TestResumeSaysWhenItDidNot(t *testing.T) {
	t.Parallel()
	down := errors.New("the topic is down")
	s := &batch.Status{Manifest: batch.Manifest{ID: "b-1", Gatherer: "w1", SealedAt: time.Now()}, State: batch.State{Phase: batch.Running}}
	if resumed, err := batch.Resume(t.Context(), failing{down}, s); resumed || !errors.Is(err, down) {
		t.Errorf("%v, %v", resumed, err)
	}
	s.Phase = batch.Closed
	if resumed, err := batch.Resume(t.Context(), failing{down}, s); resumed || err != nil {
		t.Errorf("closed: %v, %v", resumed, err)
	}
	if s.StandsStill(time.Now().Add(24 * time.Hour)) {
		t.Error("a closed batch stands still")
	}
	s.Phase = batch.Gathered
	if s.StandsStill(s.SealedAt.Add(10*time.Minute)) || !s.StandsStill(s.SealedAt.Add(2*time.Hour)) {
		t.Error("a batch without a step does not go by its seal")
	}
}
