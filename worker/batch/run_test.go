package batch_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
	"github.com/assetmill/assetmill/worker"
	"github.com/assetmill/assetmill/worker/batch"
	"github.com/assetmill/assetmill/worker/batch/batchtest"
)

// faults makes the first calls of an operation go wrong, one after the other.
func faults(op string, all ...fault) func(op, subject string, n int) fault {
	var next atomic.Int64
	return func(o, _ string, _ int) fault {
		if o == op {
			if n := int(next.Add(1)); n <= len(all) {
				return all[n-1]
			}
		}
		return fine
	}
}

// firstJob lets the first Vertex job go as planned, and well all that come after it.
func firstJob(plan batchtest.Plan) func(string, int) batchtest.Plan {
	next := plan
	return func(string, int) batchtest.Plan {
		defer func() { next = batchtest.Plan{} }()
		return next
	}
}

// states returns what lineage says of a batch, state by state.
func (w *world) states(id string) (all []string) {
	for _, r := range w.batches.Rows(id) {
		all = append(all, r.GetState())
	}
	return slices.Compact(all)
}

func TestACreateIsMadeOnce(t *testing.T) {
	t.Parallel()
	minutes := func(n int) time.Duration { return time.Duration(n) * time.Minute }
	for _, tt := range []struct {
		name   string
		faults []fault
		lag    time.Duration
		want   int
		after  time.Duration // the last job is created, at least
	}{
		{"done, and not said", []fault{failAfter}, 0, 1, 0},
		{"done, not said, and not listed for a while", []fault{failAfter}, minutes(9), 1, 0},
		{"not done", []fault{failBefore}, 0, 1, minutes(10)},
		{"not done, twice", []fault{failBefore, failBefore}, 0, 1, minutes(20)},
		{"not done, then done and not said", []fault{failBefore, failAfter}, minutes(5), 1, minutes(10)},
		{"killed before", []fault{killBefore}, 0, 1, minutes(10)},
		{"killed after", []fault{killAfter}, minutes(5), 1, 0},
		{"never done", []fault{failBefore, failBefore, failBefore}, 0, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			inWorld(t, func(t *testing.T, w *world) {
				w.vertex.Lag = tt.lag
				trouble := faults("create", tt.faults...)
				workers := []*process{w.start("w1", trouble), w.start("w2", trouble)}
				began := time.Now()
				w.publishMany(20)
				w.closeBooks(6*time.Hour, prompts(20), workers...)
				all := w.vertex.Jobs("")
				if len(all) != tt.want {
					t.Fatalf("%d Vertex jobs, want %d", len(all), tt.want)
				}
				if len(all) > 0 && all[len(all)-1].Created.Sub(began) < tt.after {
					t.Errorf("created after %s, want %s", all[len(all)-1].Created.Sub(began), tt.after)
				}
				w.closed()
			})
		})
	}
}

// A worker is frozen between its last look and its create, for longer than anybody waits.
func TestAFrozenCreatorsJobIsCancelled(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		thaw  time.Duration
		other batchtest.Plan // the job of the worker that goes on
	}{
		{"while the batch's job runs", 30 * time.Minute, batchtest.Plan{Run: 3 * time.Hour}},
		{"when that has ended", 2 * time.Hour, batchtest.Plan{Run: 90 * time.Minute}},
		{"when the batch is closed", 4 * time.Hour, batchtest.Plan{Run: 10 * time.Minute}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			inWorld(t, func(t *testing.T, w *world) {
				w.vertex.Plan = func(_ string, n int) batchtest.Plan {
					if n == 1 {
						return tt.other
					}
					return batchtest.Plan{Run: 5 * time.Hour}
				}
				frozen := w.start("frozen", faults("create", freezeBefore))
				w.publishMany(20)
				w.await(frozen.isFrozen)
				next := w.start("next", nil)
				time.Sleep(tt.thaw)
				frozen.thaw()
				w.settle(12 * time.Hour)
				time.Sleep(5 * time.Minute)
				frozen.halt()
				next.halt()
				w.books(prompts(20))
				all := w.vertex.Jobs("")
				if len(all) != 2 || all[0].State != worker.BatchSucceeded || all[1].State != worker.BatchCancelled {
					t.Fatalf("Vertex jobs: %+v", all)
				}
				if took := all[1].Ended.Sub(all[1].Created); took > 10*time.Minute {
					t.Errorf("the job too many ran for %s", took)
				}
				if c := w.closed(); len(c) != 1 || c[0].GetVertexJob() != all[0].Name || c[0].GetDone() != 20 {
					t.Errorf("closed: %v", c)
				}
			})
		})
	}
}

// batchID returns the id of the only batch.
func (w *world) batchID() string {
	w.t.Helper()
	h := &schemas.BatchHandoff{}
	if err := schemas.Unmarshal(w.queue.Handoffs.Published()[0], h); err != nil {
		w.t.Fatal(err)
	}
	return h.GetBatchId()
}

// refusal is a Vertex that says no to some creates.
type refusal struct {
	batch.Vertex
	kind worker.Kind
	left atomic.Int64
}

func (r *refusal) Create(ctx context.Context, q worker.BatchRequest) (worker.VertexBatch, error) {
	if r.left.Add(-1) >= 0 {
		return worker.VertexBatch{}, &worker.CallError{Kind: r.kind, Lane: q.Lane, Detail: "no"}
	}
	return r.Vertex.Create(ctx, q)
}

func TestWhatVertexSaysToACreate(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		kind   worker.Kind
		times  int64
		reason string // of the batch
		jobs   int
		online bool
	}{
		{worker.Rejected, 1, "failed", 0, true},
		{worker.Denied, 1, "failed", 0, true},
		{worker.Throttled, 5, "complete", 1, false},
		{worker.Unreached, 5, "complete", 1, false},
		{worker.Throttled, 1e6, "stuck", 0, true},
	} {
		t.Run(fmt.Sprint(tt.kind, tt.times), func(t *testing.T) {
			t.Parallel()
			inWorld(t, func(t *testing.T, w *world) {
				w.run.QueueTime = 4 * time.Hour
				p := w.open("w1", nil)
				r := &refusal{Vertex: vertexPort{p}, kind: tt.kind}
				r.left.Store(tt.times)
				p.runner = p.newRunner(r)
				p.begin()
				w.publishMany(20)
				w.closeBooks(12*time.Hour, prompts(20), p)
				if c := w.closed(); len(c) != 1 || c[0].GetReason() != tt.reason {
					t.Errorf("closed: %v", c)
				}
				if n := len(w.vertex.Jobs("")); n != tt.jobs {
					t.Errorf("%d Vertex jobs", n)
				}
				if online := w.online.Calls("job-7") == 1; online != tt.online {
					t.Errorf("online: %v", online)
				}
			})
		})
	}
}

func TestHowAJobEnds(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		plan   batchtest.Plan // of the first job
		spill  batch.Then
		reason string
		done   int64 // in the first batch
		online int   // jobs that were called online
		states []string
	}{
		{"complete", batchtest.Plan{}, "", "complete", 20, 0, []string{"gathered", "created", "running", "collecting", "closed"}},
		{"partial", batchtest.Plan{End: worker.BatchPartly, Part: 0.5}, "", "partial", 10, 0, []string{"gathered", "created", "running", "collecting", "closed"}},
		{"failed, with some rows", batchtest.Plan{End: worker.BatchFailed, Part: 0.25, Error: "internal"}, "", "failed", 5, 15, []string{"gathered", "created", "running", "collecting", "closed"}},
		{"failed, into another batch", batchtest.Plan{End: worker.BatchFailed}, batch.ThenBatch, "failed", 0, 0, []string{"gathered", "created", "running", "collecting", "closed"}},
		{"expired in the queue", batchtest.Plan{Queue: time.Hour, Run: time.Nanosecond, End: worker.BatchExpired}, "", "expired", 0, 20, []string{"gathered", "created", "collecting", "closed"}},
		{"cancelled by somebody", batchtest.Plan{End: worker.BatchCancelled, Part: 0.5}, "", "cancelled", 10, 10, []string{"gathered", "created", "running", "collecting", "closed"}},
		{"stuck in the queue", batchtest.Plan{Queue: -1}, "", "stuck", 0, 20, []string{"gathered", "created", "collecting", "closed"}},
		{"stuck in the queue, into another batch", batchtest.Plan{Queue: -1}, batch.ThenBatch, "stuck", 0, 0, []string{"gathered", "created", "collecting", "closed"}},
		{"never ends", batchtest.Plan{Run: -1, Part: 0.5}, "", "stuck", 10, 10, []string{"gathered", "created", "running", "collecting", "closed"}},
		{"three files, in a folder that is not said", batchtest.Plan{Shards: 3, NoFolder: true}, "", "complete", 20, 0, []string{"gathered", "created", "running", "collecting", "closed"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			inWorld(t, func(t *testing.T, w *world) {
				w.vertex.Plan = firstJob(tt.plan)
				w.run.Spill, w.run.RangeBytes = tt.spill, 1000
				first := w.start("w1", nil)
				w.publishMany(20)
				// Only one of them gathers, so that it is one batch.
				until(time.Hour, func() bool { return len(w.vertex.Jobs("")) == 1 })
				second := w.start("w2", nil)
				if made := w.closeBooks(48*time.Hour, prompts(20), first, second)[string(jobs.ReasonImage)]; made != 20 {
					t.Errorf("%d images", made)
				}
				c := w.closed()[0]
				if c.GetReason() != tt.reason || c.GetDone() != tt.done || c.GetRequeued() != 20-tt.done {
					t.Errorf("closed: %v", c)
				}
				if diff := cmp.Diff(tt.states, w.states(c.GetBatchId())); diff != "" && tt.name != "expired in the queue" {
					t.Errorf("states (-want +got):\n%s", diff)
				}
				online := 0
				for id, prompt := range prompts(20) {
					online += w.online.Calls(id)
					if n := w.vertex.Made(prompt) + w.online.Calls(id); n != 1 {
						t.Errorf("%s was made %d times", id, n)
					}
				}
				if online != tt.online {
					t.Errorf("%d calls online, want %d", online, tt.online)
				}
			})
		})
	}
}

func TestCancel(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		plan batchtest.Plan
		when time.Duration // after the seal
		made int64
	}{
		{"before Vertex has a job", batchtest.Plan{}, 0, 0},
		{"in the queue", batchtest.Plan{Queue: time.Hour, Part: 0.5}, 10 * time.Minute, 0},
		{"while it runs", batchtest.Plan{Run: 2 * time.Hour, Part: 0.5}, 10 * time.Minute, 10},
	} {
		for _, then := range []batch.Then{batch.ThenBatch, batch.ThenOnline, batch.ThenDrop} {
			t.Run(tt.name+" then "+string(then), func(t *testing.T) {
				t.Parallel()
				inWorld(t, func(t *testing.T, w *world) {
					w.vertex.Plan = firstJob(tt.plan)
					var id atomic.Pointer[string]
					p := w.start("w1", func(op, subject string, _ int) fault {
						if op != "seal" || !id.CompareAndSwap(nil, &subject) || tt.when > 0 {
							return fine
						}
						if err := batch.Cancel(w.t.Context(), w.files, subject, then); err != nil {
							t.Error(err)
						}
						return fine
					})
					w.publishMany(20)
					until(time.Hour, func() bool { return id.Load() != nil })
					if tt.when > 0 {
						time.Sleep(tt.when)
						for range 2 {
							if err := batch.Cancel(t.Context(), w.files, *id.Load(), then); err != nil {
								t.Error(err)
							}
						}
					}
					reasons := w.closeBooks(12*time.Hour, prompts(20), p)
					c := w.closed()[0]
					if c.GetBatchId() != *id.Load() || c.GetReason() != "cancelled" || c.GetDone() != tt.made {
						t.Errorf("closed: %v", c)
					}
					if n := len(w.vertex.Jobs(c.GetBatchId())); (n == 0) != (tt.when == 0) {
						t.Errorf("%d Vertex jobs", n)
					}
					dropped, online := 0, 0
					if then == batch.ThenDrop {
						dropped = 20 - int(tt.made)
					}
					for id := range prompts(20) {
						online += w.online.Calls(id)
					}
					if want := 20 - int(tt.made); (then == batch.ThenOnline) != (online == want) || then != batch.ThenOnline && online > 0 {
						t.Errorf("%d calls online", online)
					}
					if reasons[string(jobs.ReasonCancelled)] != dropped || reasons[string(jobs.ReasonImage)] != 20-dropped || c.GetFailed() != int64(dropped) {
						t.Errorf("ended: %v, %v", reasons, c)
					}
				})
			})
		}
	}
}

func TestAWishThatCantBeReadIsNotGuessed(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.vertex.Plan = func(string, int) batchtest.Plan { return batchtest.Plan{Run: 2 * time.Hour} }
		p := w.start("w1", nil)
		w.publishMany(20)
		time.Sleep(10 * time.Minute)
		if _, err := w.files.Swap(t.Context(), "batches/"+w.batchID()+"/cancel.json", 0, []byte(`{"then":"burn"}`)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		if s := w.vertex.Jobs("")[0].State; s != worker.BatchRunning {
			t.Errorf("the Vertex job is %s", s)
		}
		if err := batch.Cancel(t.Context(), w.files, w.batchID(), batch.ThenOnline); err != nil {
			t.Fatal(err)
		}
		w.closeBooks(3*time.Hour, prompts(20), p)
	})
}

func TestAJobThatWasDeletedHasEnded(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		p := w.start("w1", nil)
		w.publishMany(20)
		time.Sleep(5 * time.Minute)
		w.vertex.Delete(w.vertex.Jobs("")[0].Name)
		w.closeBooks(3*time.Hour, prompts(20), p)
		if c := w.closed(); len(c) != 1 || c[0].GetReason() != "failed" || !strings.Contains(c[0].GetDetail(), "deleted") {
			t.Errorf("closed: %v", c)
		}
	})
}

func TestAnOutputThatIsNotThere(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		comes  bool // later
		online int
	}{{"for a while", true, 0}, {"for ever", false, 20}} {
		t.Run(tt.name, func(t *testing.T) {
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
				p := w.start("w1", nil)
				w.publishMany(20)
				until(time.Hour, func() bool { return hidden.Load() != nil })
				time.Sleep(2 * time.Minute)
				if tt.comes {
					for _, f := range *hidden.Load() {
						w.files.Move("hidden/"+f, f)
					}
				}
				w.closeBooks(5*time.Hour, prompts(20), p)
				if c := w.closed()[0]; int(c.GetRequeued()) != tt.online {
					t.Errorf("closed: %v", c)
				}
			})
		})
	}
}

func TestAnOutputElsewhereIsNotPaidForAgain(t *testing.T) {
	t.Parallel()
	for _, folder := range []string{"gs://elsewhere/output", "gs://work/batches/b-other/output/p", "gs://work/batches"} {
		t.Run(folder, func(t *testing.T) {
			t.Parallel()
			inWorld(t, func(t *testing.T, w *world) {
				w.vertex.Plan = func(string, int) batchtest.Plan { return batchtest.Plan{Folder: folder} }
				p := w.start("w1", nil)
				w.publishMany(20)
				time.Sleep(5 * time.Hour)
				if w.closed() != nil || w.queue.Handoffs.Held() != 1 {
					t.Errorf("the batch was closed: %v", w.closed())
				}
				p.halt()
			})
		})
	}
}

func TestLostMessagesAreAskedForAgain(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.run.RangeBytes = 500
		var purged atomic.Int64
		p := w.open("w1", nil)
		p.purge = func(d *jobs.Delivery) bool {
			h := &schemas.BatchHandoff{}
			return schemas.Unmarshal(d.Data, h) == nil && h.GetRange() == 2 && purged.Add(1) == 1
		}
		p.begin()
		w.publishMany(20)
		w.closeBooks(12*time.Hour, prompts(20), p)
		if purged.Load() < 2 {
			t.Error("the range was asked for once")
		}
	})
}

func TestRepeatedHandoffsDoNoHarm(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.run.RangeBytes = 500
		workers := []*process{w.start("w1", nil), w.start("w2", nil)}
		w.publishMany(20)
		again := func() {
			for _, data := range w.queue.Handoffs.Published() {
				w.queue.Handoffs.Publish(data, nil)
			}
			w.queue.Handoffs.Publish(fmt.Appendf(nil, `{"batch_id":%q,"gatherer":"w1","range":99}`, w.batchID()), nil)
		}
		time.Sleep(5 * time.Minute)
		again()
		w.settle(3 * time.Hour)
		again() // after the end
		w.closeBooks(time.Hour, prompts(20), workers...)
		if n := len(w.vertex.Jobs("")); n != 1 {
			t.Errorf("%d Vertex jobs", n)
		}
		for id := range prompts(20) {
			if n := len(w.rows(id)); n != 1 {
				t.Errorf("%s has %d rows", id, n)
			}
		}
	})
}

func TestReadStatus(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		p := w.start("w1", nil)
		w.publishMany(20)
		time.Sleep(5 * time.Minute)
		id := w.batchID()
		if err := batch.Cancel(t.Context(), w.files, id, batch.ThenDrop); err != nil {
			t.Fatal(err)
		}
		seal, err := p.ledger.ReadSeal(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		s, err := batch.ReadStatus(t.Context(), w.files, seal.Manifest)
		if err != nil || s.ID != id || s.Rows != 20 || s.Phase != batch.Running || s.Job == "" || s.Wish != batch.ThenDrop {
			data, _ := json.Marshal(s)
			t.Errorf("%s, %v", data, err)
		}
		w.settle(3 * time.Hour)
		p.halt()
		if s, err = batch.ReadStatus(t.Context(), w.files, seal.Manifest); err != nil || s.Phase != batch.Closed || s.Totals.Failed+s.Totals.Done != 20 {
			t.Errorf("%+v, %v", s, err)
		}
	})
}
