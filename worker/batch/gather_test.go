package batch_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/worker"
	"github.com/assetmill/assetmill/worker/batch"
)

// sizes returns how many jobs the batches have that were sealed, in the order of their sealing.
func (w *world) sizes() (all []int) {
	w.t.Helper()
	for _, d := range w.queue.Handoffs.Published() {
		if m := w.manifest(d); m != nil {
			all = append(all, m.Rows)
		}
	}
	return all
}

func TestBoundsOfABatch(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		bound func(*batch.GatherConfig)
		// jobs are published in this many groups, so far apart.
		groups, each int
		apart        time.Duration
		want         []int
		after        time.Duration // the last of them is sealed about then
	}{
		{"rows", func(c *batch.GatherConfig) { c.Rows = 10 }, 1, 25, 0, []int{10, 10, 5}, time.Minute},
		{"bytes", func(c *batch.GatherConfig) { c.Bytes = 1000 }, 1, 25, 0, []int{12, 12, 1}, time.Minute},
		{"age", func(*batch.GatherConfig) {}, 10, 5, 30 * time.Second, []int{50}, 5 * time.Minute},
		{"age ends it", func(*batch.GatherConfig) {}, 14, 5, 30 * time.Second, []int{50, 20}, 7*time.Minute + 30*time.Second},
		{"idle", func(*batch.GatherConfig) {}, 2, 5, 2 * time.Minute, []int{5, 5}, 3 * time.Minute},
		{"no more than Vertex takes", func(c *batch.GatherConfig) { c.Rows, c.Bytes = 1e9, 1e18 }, 1, 7, 0, []int{7}, time.Minute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			inWorld(t, func(t *testing.T, w *world) {
				w.gather.Age, w.gather.Idle = 5*time.Minute-time.Second, time.Minute
				tt.bound(&w.gather)
				p := w.start("w1", nil)
				began := time.Now()
				for g := range tt.groups {
					if g > 0 {
						time.Sleep(tt.apart)
					}
					for i := range tt.each {
						w.publish(fmt.Sprintf("job-%d-%d", g, i), fmt.Sprintf("prompt %2d %2d", g, i), "")
					}
				}
				if !until(time.Hour, func() bool { return len(w.sizes()) == len(tt.want) }) {
					t.Errorf("sealed: %v", w.sizes())
				}
				if took := time.Since(began); took < tt.after-10*time.Second || took > tt.after+10*time.Second {
					t.Errorf("the last was sealed after %s, want %s", took, tt.after)
				}
				if diff := cmp.Diff(tt.want, w.sizes()); diff != "" {
					t.Errorf("jobs (-want +got):\n%s", diff)
				}
				p.halt()
			})
		})
	}
}

func TestModelsAndRegionsAreNotMixed(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.gather.Lane = func(model, region string) (worker.Lane, error) {
			return worker.Lane{Name: model + " in " + region, Tier: jobs.TierBatch, Location: region, Model: model}, nil
		}
		p := w.start("w1", nil)
		all := map[string]string{}
		for i := range 30 {
			more := []string{"", `,"model":"gemini-2.5-flash-image"`, `,"model":"gemini-2.5-flash-image","region":"europe-west1"`}[i%3]
			id := fmt.Sprint("job-", i)
			all[id] = fmt.Sprint("prompt ", i, more[:min(len(more), 20)])
			w.publish(id, strings.ReplaceAll(all[id], `"`, ""), more)
			all[id] = strings.ReplaceAll(all[id], `"`, "")
		}
		w.closeBooks(2*time.Hour, all, p)
		var got []string
		for _, r := range w.closed() {
			got = append(got, fmt.Sprint(r.GetJobs(), " ", r.GetModel(), " ", r.GetLocation(), " ", r.GetRegion(), " ", r.GetLane()))
		}
		slices.Sort(got)
		want := []string{
			"10 gemini-2.5-flash-image europe-west1 europe-west1 gemini-2.5-flash-image in europe-west1",
			"10 gemini-2.5-flash-image global global gemini-2.5-flash-image in global",
			"10 gemini-3-pro-image global global gemini-3-pro-image in global",
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("batches (-want +got):\n%s", diff)
		}
	})
}

func TestAStopSealsMuchAndGivesBackLittle(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		jobs   int
		sealed []int
	}{{99, nil}, {100, []int{100}}} {
		t.Run(fmt.Sprint(tt.jobs), func(t *testing.T) {
			t.Parallel()
			inWorld(t, func(t *testing.T, w *world) {
				p := w.start("w1", nil)
				w.publishMany(tt.jobs)
				time.Sleep(time.Second)
				stopped := time.Now()
				p.halt()
				if took := time.Since(stopped); took > 5*time.Second {
					t.Errorf("the stop took %s", took)
				}
				if diff := cmp.Diff(tt.sealed, w.sizes()); diff != "" {
					t.Errorf("sealed (-want +got):\n%s", diff)
				}
				if held := w.queue.Batch.Held(); tt.sealed == nil && held != tt.jobs || tt.sealed != nil && held != 0 {
					t.Errorf("%d of %d messages are in the queue", held, tt.jobs)
				}
				next := w.start("w2", nil)
				w.closeBooks(2*time.Hour, prompts(tt.jobs), next)
			})
		})
	}
}

func TestWhatDoesNotGoIntoABatch(t *testing.T) {
	t.Parallel()
	dead := func(reason jobs.Reason) func(*world) bool {
		return func(w *world) bool {
			all := w.queue.Batch.Dead()
			return len(all) == 1 && all[0].Verdict.Reason == reason
		}
	}
	ended := func(reason jobs.Reason) func(*world) bool {
		return func(w *world) bool {
			all := w.rows("odd")
			return len(all) == 1 && all[0].GetReason() == string(reason) && len(w.queue.Batch.Dead()) == 0
		}
	}
	for _, tt := range []struct {
		name   string
		before func(w *world)
		prompt string
		more   string
		want   func(w *world) bool
	}{
		{"cancelled submission", func(w *world) { w.controls.Set("s-1", worker.Cancel) }, "odd", `,"submission":"s-1"`, ended(jobs.ReasonCancelled)},
		{"deadline that has passed", nil, "odd", `,"deadline":"1999-01-01T00:00:00Z"`, ended(jobs.ReasonDeadlinePassed)},
		{"not a job", nil, "", "", dead(jobs.ReasonInvalidJob)},
		{"a region that batches are not kept in", func(w *world) { w.gather.Lane = noLane }, "odd", "", dead(jobs.ReasonNoLane)},
		{"a request that can't be written", nil, "odd [[unspeakable]]", "", dead(jobs.ReasonNoLane)},
		{"another job of the id", func(w *world) { w.finish("odd", "even", "s-0") }, "odd", "", dead(jobs.ReasonIDConflict)},
		{"a job that has ended", func(w *world) { w.finish("odd", "odd", "s-0") }, "odd", `,"submission":"s-0"`, ended(jobs.ReasonImage)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			inWorld(t, func(t *testing.T, w *world) {
				if tt.before != nil {
					tt.before(w)
				}
				p := w.start("w1", nil)
				w.publish("odd", tt.prompt, tt.more)
				time.Sleep(time.Minute)
				if !tt.want(w) {
					t.Errorf("rows %v, dead %v, retried %v", w.rows("odd"), w.queue.Batch.Dead(), w.queue.Batch.Retried())
				}
				if held := w.queue.Batch.Held(); held != 0 {
					t.Errorf("%d messages are in the queue", held)
				}
				p.halt()
				if s := w.sizes(); s != nil {
					t.Errorf("sealed: %v", s)
				}
			})
		})
	}
}

func noLane(string, string) (worker.Lane, error) {
	return worker.Lane{}, fmt.Errorf("%w: none here", worker.ErrNoLane)
}

// finish records a job as done.
func (w *world) finish(id, prompt, submission string) {
	w.t.Helper()
	l := workertestAlive(w, "past")
	j := w.parse(id, prompt, submission)
	s, err := l.Claim(w.t.Context(), id, j.Digest())
	if err == nil {
		err = l.Finish(w.t.Context(), s.Ticket, worker.Record{Generation: generation(j)})
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

func TestAPausedJobWaitsOutsideOfBatches(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.controls.Set("s-1", worker.Pause)
		p := w.start("w1", nil)
		w.publish("paused", "paused", `,"submission":"s-1"`)
		w.publish("job-0", "prompt 0.", "")
		time.Sleep(5 * time.Minute)
		if got := w.sizes(); !slices.Equal(got, []int{1}) {
			t.Errorf("sealed: %v", got)
		}
		w.controls.Set("s-1", worker.Proceed)
		w.closeBooks(2*time.Hour, map[string]string{"paused": "paused", "job-0": "prompt 0."}, p)
	})
}

func TestAJobThatIsPublishedTwiceIsMadeOnce(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		p := w.start("w1", nil)
		for range 3 {
			w.publish("twin", "twin", "")
			w.publish("twin", "twin", `,"submission":"s-2"`)
		}
		w.settle(2 * time.Hour)
		p.halt()
		if n := w.vertex.Made("twin"); n != 1 {
			t.Errorf("made %d times", n)
		}
		submissions := map[string]bool{}
		for _, r := range w.rows("twin") {
			submissions[r.GetSubmission()] = true
		}
		if len(submissions) != 2 {
			t.Errorf("ended in %v", submissions)
		}
	})
}

func TestABatchThatCantBeWrittenGivesItsJobsBack(t *testing.T) {
	t.Parallel()
	for _, op := range []string{"write input.jsonl", "write jobs.jsonl", "write index", "hand off ", "released"} {
		t.Run(op, func(t *testing.T) {
			t.Parallel()
			inWorld(t, func(t *testing.T, w *world) {
				var down atomic.Bool
				down.Store(true)
				p := w.start("w1", func(o, subject string, _ int) fault {
					if down.Load() && strings.HasPrefix(o+" "+subject[strings.LastIndex(subject, "/")+1:], op) {
						return failBefore
					}
					if op == "released" && down.Load() && o == "release" && subject == "paused" {
						return failBefore
					}
					return fine
				})
				if op == "released" {
					// A claim that can't be given back spoils its batch: sealed, it would hold the job for ever.
					w.controls.Set("s-1", worker.Pause)
					w.publish("paused", "paused", `,"submission":"s-1"`)
				}
				w.publishMany(20)
				time.Sleep(5 * time.Minute)
				if s := w.sizes(); s != nil && op != "released" {
					t.Errorf("sealed: %v", s)
				}
				if n := len(w.queue.Batch.Retried()); n < 20 {
					t.Errorf("%d messages were given back", n)
				}
				down.Store(false)
				w.controls.Set("s-1", worker.Proceed)
				if op == "released" {
					p.halt() // its claim of the paused job ends with it
					p = w.start("w2", nil)
				}
				w.closeBooks(2*time.Hour, prompts(20), p)
			})
		})
	}
}

func TestSealingIsTriedUntilItIsKnown(t *testing.T) {
	t.Parallel()
	for _, what := range []fault{failBefore, failAfter} {
		t.Run(fmt.Sprint(what), func(t *testing.T) {
			t.Parallel()
			inWorld(t, func(t *testing.T, w *world) {
				back := time.Now().Add(50 * time.Minute)
				p := w.start("w1", func(op, _ string, _ int) fault {
					if op == "seal" && time.Now().Before(back) {
						return what
					}
					return fine
				})
				w.publishMany(20)
				w.closeBooks(3*time.Hour, prompts(20), p)
				if got := len(w.vertex.Jobs("")); got != 1 {
					t.Errorf("%d Vertex jobs", got)
				}
				if got := len(w.queue.Batch.Retried()); got != 0 {
					t.Errorf("%d messages were given back although they may have been sealed", got)
				}
			})
		})
	}
}

func TestAStopDuringAnUnclearSealLeavesTheBatchToOthers(t *testing.T) {
	t.Parallel()
	for _, what := range []fault{failBefore, failAfter} {
		t.Run(fmt.Sprint(what), func(t *testing.T) {
			t.Parallel()
			inWorld(t, func(t *testing.T, w *world) {
				p := w.start("w1", func(op, _ string, _ int) fault {
					if op == "seal" {
						return what
					}
					return fine
				})
				w.publishMany(20)
				time.Sleep(2 * time.Minute)
				p.halt()
				p = w.start("w2", nil)
				w.closeBooks(3*time.Hour, prompts(20), p)
				if got := len(w.vertex.Jobs("")); got != 1 {
					t.Errorf("%d Vertex jobs", got)
				}
			})
		})
	}
}

func TestAFrozenGathererIsVoided(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"write", "hand off", "seal"} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			inWorld(t, func(t *testing.T, w *world) {
				frozen := w.start("frozen", faults(at, freezeBefore))
				w.publishMany(150)
				w.await(frozen.isFrozen)
				next := w.start("next", nil)
				time.Sleep(10 * time.Minute)
				frozen.thaw()
				w.closeBooks(4*time.Hour, prompts(150), frozen, next)
				for prompt := range prompts(150) {
					if n := w.vertex.Made(prompt); n > 1 {
						t.Errorf("%s: made %d times", prompt, n)
					}
				}
				if n := sum(w.sizes()); n != 150 {
					t.Errorf("%d jobs in sealed batches", n)
				}
			})
		})
	}
}

func sum(all []int) (n int) {
	for _, v := range all {
		n += v
	}
	return n
}

func TestAHandoffWaitsForItsSeal(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		gatherer := w.start("gatherer", nil)
		id := "b-20000101-000000-aaaaaaaaaa"
		other := w.start("other", nil)
		time.Sleep(time.Second) // signs of life
		w.handoff(id, "gatherer")
		time.Sleep(10 * time.Minute)
		if w.queue.Handoffs.Held() != 1 {
			t.Error("it was given up while its gatherer lives")
		}
		gatherer.kill()
		if !until(5*time.Minute, func() bool { return w.queue.Handoffs.Held() == 0 }) {
			t.Error("it waits for a gatherer that is dead")
		}
		seal, err := other.ledger.ReadSeal(t.Context(), id)
		if err != nil || !seal.Void {
			t.Errorf("seal %+v, %v", seal, err)
		}
		other.halt()
	})
}

func TestHandoffsThatAreNone(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		p := w.start("w1", nil)
		for _, data := range []string{`{`, `{}`, `{"batch_id":"b-1"}`, `{"batch_id":"b-1","gatherer":"w","range":-1}`} {
			w.queue.Handoffs.Publish([]byte(data), nil)
		}
		time.Sleep(time.Minute)
		if n := len(w.queue.Handoffs.Dead()); n != 4 {
			t.Errorf("%d dead letters", n)
		}
		p.halt()
	})
}

// badSpine panics for one job, when it is claimed.
type badSpine struct {
	batch.Spine
	job string
	bad *atomic.Bool
}

func (s badSpine) Admit(ctx context.Context, d *jobs.Delivery, claim func(context.Context, *jobs.Job) (worker.Standing, error)) (*worker.Admitted, jobs.Verdict) {
	return s.Spine.Admit(ctx, d, func(ctx context.Context, j *jobs.Job) (worker.Standing, error) {
		standing, err := claim(ctx, j)
		if j.ID == s.job && s.bad.Load() {
			panic("bug")
		}
		return standing, err
	})
}

func TestAPanicHurtsNoOtherJob(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		var bad atomic.Bool
		bad.Store(true)
		p := w.open("w1", nil)
		p.gatherer = p.newGatherer(badSpine{p.spine, "job-3", &bad})
		p.begin()
		w.publishMany(20)
		time.Sleep(5 * time.Minute)
		if got := w.sizes(); !slices.Equal(got, []int{19}) {
			t.Errorf("sealed: %v", got)
		}
		bad.Store(false)
		w.closeBooks(2*time.Hour, prompts(20), p)
	})
}

func TestNothingIsTakenAfterAStop(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		p := w.open("w1", nil)
		ctx, rest := context.WithCancel(t.Context())
		go p.ledger.OpenLedger.Beat(ctx)
		p.gatherer.Stop()
		p.gatherer.Stop()
		v := p.gatherer.Handle(ctx, &jobs.Delivery{ID: "m1", Data: []byte(`{"id":"late","prompt":"late","mode":"batch"}`)})
		if v.Action != jobs.Retry {
			t.Errorf("verdict %+v", v)
		}
		p.gatherer.Close()
		rest()
		if s, err := workertestAlive(w, "w2").Claim(t.Context(), "late", w.parse("late", "late", "").Digest()); err != nil || s.State != worker.Granted {
			t.Errorf("the job is held: %+v, %v", s, errors.Join(err))
		}
	})
}
