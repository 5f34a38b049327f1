package worker_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/assetmill/assetmill/internal/blob"
	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
	"github.com/assetmill/assetmill/worker"
	"github.com/assetmill/assetmill/worker/workertest"
)

// bench is one worker with ports in memory.
type bench struct {
	t        *testing.T
	queue    *workertest.Queue
	ledger   *workertest.Ledger
	controls *workertest.Controls
	hook     workertest.Hook
	assets   *workertest.Assets
	lineage  *workertest.Lineage
	results  *workertest.Results
	model    *workertest.Model
	budget   *blob.Budget
	stop     context.CancelFunc
	ended    chan error
	down     atomic.Pointer[string] // the operation that fails, if any

	hurry      chan struct{}
	lanes      *workertest.Lanes
	refuse     atomic.Bool // whether no lane serves any job
	refuseRows atomic.Bool // whether lineage can't store generation rows
}

const budgetBytes = 1 << 20

// start runs a worker in the current synctest bubble.
func start(t *testing.T, answer func(b *bench, ctx context.Context, j *jobs.Job, n int) (*worker.Answer, error), hurry ...chan struct{}) *bench {
	b := &bench{
		t: t, queue: workertest.NewQueue(), ledger: workertest.NewLedger(), controls: &workertest.Controls{}, assets: workertest.NewAssets(),
		lineage: &workertest.Lineage{}, results: &workertest.Results{}, budget: blob.NewBudget(budgetBytes), ended: make(chan error, 1),
	}
	b.hook = workertest.Hook(func(op, _ string) error {
		if op == "generation" && b.refuseRows.Load() {
			return fmt.Errorf("append: %w", worker.ErrRowRefused)
		}
		if down := b.down.Load(); down != nil && *down == op {
			return errors.New("the service is down")
		}
		return nil
	})
	b.controls.Hook, b.assets.Hook, b.lineage.Hook, b.results.Hook = b.hook, b.hook, b.hook, b.hook
	b.model = &workertest.Model{Answer: func(ctx context.Context, j *jobs.Job, n int) (*worker.Answer, error) { return answer(b, ctx, j, n) }}
	if len(hurry) > 0 {
		b.hurry = hurry[0]
	}
	b.run()
	return b
}

func (b *bench) run() { b.runAs("w1") }

func (b *bench) runAs(id string) {
	ctx, stop := context.WithCancel(b.t.Context())
	b.stop = stop
	b.lanes = &workertest.Lanes{Lane: lane, Refuse: func(j *jobs.Job) error {
		if b.refuse.Load() {
			return fmt.Errorf("%w: nothing is served in its region", worker.ErrNoLane)
		}
		return nil
	}}
	w := worker.New(worker.Config{ID: id, Version: "test", Catalogue: jobs.DefaultCatalogue(), Log: zap.NewNop(), Hurry: b.hurry}, worker.Ports{
		Queue: b.queue, Controls: b.controls, Ledger: b.ledger.Open(id, b.hook), Lanes: b.lanes, Model: b.model, Assets: b.assets, Lineage: b.lineage, Results: b.results,
	})
	go func() { b.ended <- w.Run(ctx) }()
}

// halt stops the worker and returns what Run returned. Every image must have been released by then.
func (b *bench) halt() error {
	b.t.Helper()
	b.stop()
	err := <-b.ended
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	whole, reserveErr := b.budget.Reserve(ctx, budgetBytes, budgetBytes)
	if reserveErr != nil {
		b.t.Errorf("images were not released: %v", reserveErr)
	}
	if n := b.lanes.Out(); n != 0 {
		b.t.Errorf("%d permits were not given back", n)
	}
	whole.Release()
	return err
}

// image is an answer with a picture.
func (b *bench) image(text string) *worker.Answer {
	b.t.Helper()
	bl, err := b.budget.Reserve(b.t.Context(), int64(len(text)), 1<<20)
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := bl.Write([]byte(text)); err != nil {
		b.t.Fatal(err)
	}
	return &worker.Answer{
		Reason: jobs.ReasonImage, FinishReason: "STOP",
		Image: &worker.Image{Blob: bl, MimeType: "image/png", Width: 1024, Height: 1024},
		Usage: jobs.Usage{Prompt: 10, Image: 1120, Total: 1130},
	}
}

var lane = worker.Lane{Name: "test", Tier: "standard", Location: "global"}

func (b *bench) publish(id, more string) {
	b.queue.Publish([]byte(`{"id":"`+id+`","prompt":"a red fox"`+more+`}`), nil)
}

// row returns the only generation row of a job.
func (b *bench) row(id string) *schemas.GenerationRow {
	b.t.Helper()
	var found []*schemas.GenerationRow
	for _, r := range b.lineage.Generations() {
		if r.GetJobId() == id {
			found = append(found, r)
		}
	}
	if len(found) != 1 {
		b.t.Fatalf("job %s has %d rows, want 1", id, len(found))
	}
	return found[0]
}

func succeed(b *bench, _ context.Context, j *jobs.Job, _ int) (*worker.Answer, error) {
	time.Sleep(10 * time.Second) // virtual
	return b.image("image of " + j.ID), nil
}

func callError(kind worker.Kind) *worker.CallError {
	return &worker.CallError{Kind: kind, Status: 500, Detail: "said the service", Lane: lane}
}

func TestImageIsStoredRecordedAnnouncedThenAcked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, succeed)
		b.publish("fox-1", `,"campaign":"spring","source":{"SKU":"7"}`)
		time.Sleep(time.Minute)
		if err := b.halt(); err != nil {
			t.Fatalf("Run: %v", err)
		}
		row := b.row("fox-1")
		if row.GetOutcome() != "succeeded" || row.GetReason() != "image" || row.GetAttempts() != 1 {
			t.Errorf("row is %s/%s after %d attempts", row.GetOutcome(), row.GetReason(), row.GetAttempts())
		}
		if want := "0.134420000"; row.GetCostUsd() != want {
			t.Errorf("cost is %s, want %s", row.GetCostUsd(), want)
		}
		if row.GetCallMs() != 10_000 {
			t.Errorf("call took %d ms, want 10000", row.GetCallMs())
		}
		stored := b.assets.Objects()["keep/spring/fox-1"]
		if string(stored.Content) != "image of fox-1" || row.GetAssetUri() != stored.URI {
			t.Errorf("stored %q at %s, row says %s", stored.Content, stored.URI, row.GetAssetUri())
		}
		if e := b.results.Events(); len(e) != 1 || e[0].GetJobId() != "fox-1" || e[0].GetSource()["SKU"] != "7" {
			t.Errorf("events: %v", e)
		}
		if a := b.lineage.Attempts(); len(a) != 1 || a[0].GetResult() != "image" {
			t.Errorf("attempts: %v", a)
		}
		if got := b.queue.Acked(); len(got) != 1 {
			t.Errorf("acked %v", got)
		}
	})
}

func TestFinishedJobIsNeverCalledAgain(t *testing.T) {
	for _, reason := range []jobs.Reason{jobs.ReasonImage, jobs.ReasonPromptFilter, jobs.ReasonModelDeclined} {
		t.Run(string(reason), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := start(t, func(b *bench, _ context.Context, j *jobs.Job, n int) (*worker.Answer, error) {
					if reason == jobs.ReasonImage {
						return b.image("x"), nil
					}
					return &worker.Answer{Reason: reason, Detail: "no"}, nil
				})
				for range 5 {
					b.publish("twice", "")
					time.Sleep(time.Minute)
				}
				b.halt()
				if n := b.model.Calls("twice"); n != 1 {
					t.Errorf("called %d times", n)
				}
				rows := b.lineage.Generations()
				for _, r := range rows {
					if r.GetReason() != string(reason) || r.GetFinishedAt() != rows[0].GetFinishedAt() {
						t.Errorf("a repeated row differs: %v", r)
					}
				}
				if len(b.queue.Acked()) != 5 {
					t.Errorf("acked %d of 5 messages", len(b.queue.Acked()))
				}
			})
		})
	}
}

// The same id and content in two submissions is one job: paid once, and ended in both.
func TestAJobEndsInEverySubmissionThatHasIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, succeed)
		b.publish("shared", `,"submission":"s-1","source":{"row":"1"}`)
		time.Sleep(time.Minute)
		b.publish("shared", `,"submission":"s-2","source":{"row":"2"}`)
		time.Sleep(time.Minute)
		b.halt()
		rows, events := b.lineage.Generations(), b.results.Events()
		if len(rows) != 2 || len(events) != 2 || b.model.Calls("shared") != 1 || len(b.lineage.Attempts()) != 1 {
			t.Fatalf("%d rows, %d events, %d calls", len(rows), len(events), b.model.Calls("shared"))
		}
		for i, submission := range []string{"s-1", "s-2"} {
			if rows[i].GetSubmission() != submission || rows[i].GetAssetUri() != rows[0].GetAssetUri() || rows[i].GetSource()[0].GetValue() != fmt.Sprint(i+1) {
				t.Errorf("row %d: %v", i, rows[i])
			}
			if e := events[i]; e.GetSubmission() != submission || e.GetMessageId() != fmt.Sprint("m", i+1) || e.GetSource()["row"] != fmt.Sprint(i+1) {
				t.Errorf("event %d: %v", i, e)
			}
		}
		if rows[1].GetCostUsd() != "0.000000000" || rows[1].GetReceivedAt() <= rows[0].GetReceivedAt() {
			t.Errorf("the second row costs %s", rows[1].GetCostUsd())
		}
	})
}

func TestTheAckComesLast(t *testing.T) {
	for _, op := range []string{"control", "claim", "finish", "attempt", "generation", "result"} {
		t.Run(op, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := start(t, succeed)
				b.down.Store(&op)
				b.publish("patient", "")
				time.Sleep(5 * time.Minute)
				if got := b.queue.Acked(); len(got) != 0 {
					t.Fatalf("acked although %s was impossible", op)
				}
				b.down.Store(nil)
				time.Sleep(5 * time.Minute)
				switch {
				case op == "finish":
					// Nobody can tell whether the record was written, so the claim stays until its worker is seen to be gone.
					if len(b.queue.Acked()) != 0 {
						t.Error("acked although the claim is still open")
					}
				case len(b.queue.Acked()) != 1:
					t.Errorf("not acked although %s is possible again", op)
				case b.model.Calls("patient") != 1:
					t.Errorf("called %d times", b.model.Calls("patient"))
				}
				b.halt()
			})
		})
	}
}

func TestNoImageIsBoughtThatCannotBeStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, succeed)
		down := "store"
		b.down.Store(&down)
		b.publish("first", "")
		time.Sleep(15 * time.Second)
		b.publish("second", "")
		time.Sleep(30 * time.Second)
		b.down.Store(nil) // in time: the image is still there
		err := <-b.ended
		if err == nil || !strings.Contains(err.Error(), "can't be stored") {
			t.Errorf("Run returned %v", err)
		}
		if b.model.Calls("first") != 1 || b.model.Calls("second") != 0 || b.row("first").GetOutcome() != "succeeded" {
			t.Errorf("calls: %d and %d", b.model.Calls("first"), b.model.Calls("second"))
		}
	})
}

// abandon claims a job as a worker that then dies without a word, and lets it be taken for dead.
func (b *bench) abandon(id string) {
	dying := b.ledger.Open("dying", func(op, _ string) error {
		if op == "leave" {
			return errors.New("killed")
		}
		return nil
	})
	ctx, kill := context.WithCancel(b.t.Context())
	go dying.Beat(ctx)
	if s, err := dying.Claim(ctx, id, digestOf(b.t, `{"id":"`+id+`","prompt":"a red fox"}`)); err != nil || s.State != worker.Granted {
		b.t.Fatalf("claim: %+v, %v", s, err)
	}
	kill()
}

func TestADeadWorkersJobIsTakenOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, succeed)
		b.abandon("orphan")
		began := time.Now()
		b.publish("orphan", "")
		time.Sleep(10 * time.Second)
		if b.model.Calls("orphan") != 0 {
			t.Error("taken over from a worker that may still live")
		}
		time.Sleep(time.Minute)
		b.halt()
		row := b.row("orphan")
		if row.GetOutcome() != "succeeded" || row.GetAttempts() != 2 || !row.GetCostIsFallback() {
			t.Errorf("row: %v", row)
		}
		if waited := time.UnixMicro(row.GetCalledAt()).Sub(began); waited > 30*time.Second {
			t.Errorf("taken over after %s", waited)
		}
		if a := b.lineage.Attempts(); len(a) != 2 || a[0].GetResult() != "unknown" || a[0].GetReason() != "abandoned" || a[1].GetResult() != "image" {
			t.Errorf("attempts: %v", a)
		}
	})
}

func TestADeadWorkersImageIsAdopted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, succeed)
		b.abandon("stored")
		m := &schemas.Job{Id: "stored", Prompt: "a red fox"}
		j, err := jobs.DefaultCatalogue().Parse(m)
		if err != nil {
			t.Fatal(err)
		}
		left := b.image("left behind")
		if _, err := b.assets.Store(t.Context(), j, left.Image); err != nil {
			t.Fatal(err)
		}
		left.Image.Blob.Release()
		b.publish("stored", "")
		time.Sleep(time.Minute)
		b.halt()
		row := b.row("stored")
		if row.GetOutcome() != "succeeded" || row.GetAssetBytes() != int64(len("left behind")) || b.model.Calls("stored") != 0 || !row.GetCostIsFallback() {
			t.Errorf("after %d calls: %v", b.model.Calls("stored"), row)
		}
	})
}

// A job that kills every worker that takes it must come to an end.
func TestAJobThatKillsItsWorkersEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, func(b *bench, ctx context.Context, j *jobs.Job, n int) (*worker.Answer, error) { panic("again") })
		b.publish("killer", "")
		for range 2 * worker.MaxCalls {
			time.Sleep(10 * time.Minute)
		}
		b.halt()
		t.Log(b.model.Calls("killer"), "calls")
		if row := b.row("killer"); row.GetReason() != "attempts_exhausted" {
			t.Errorf("ended as %s", row.GetReason())
		}
	})
}

// So must one that takes its worker's whole process with it; and lineage has a row for every call.
func TestAJobThatKillsProcessesEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, func(_ *bench, ctx context.Context, _ *jobs.Job, _ int) (*worker.Answer, error) {
			<-ctx.Done()
			return nil, callError(worker.Unanswered)
		})
		b.halt()
		b.publish("killer", "")
		var killed sync.WaitGroup
		for n := range worker.MaxCalls {
			var dead atomic.Bool
			hook := workertest.Hook(func(string, string) error {
				if dead.Load() {
					return errors.New("killed")
				}
				return nil
			})
			id := fmt.Sprintf("doomed-%d", n)
			doomed := worker.New(worker.Config{ID: id, Version: "test", Catalogue: jobs.DefaultCatalogue(), Log: zap.NewNop()}, worker.Ports{
				Queue: b.queue, Controls: b.controls, Ledger: b.ledger.Open(id, hook), Lanes: b.lanes, Model: b.model, Assets: b.assets, Lineage: b.lineage, Results: b.results,
			})
			ctx, kill := context.WithCancel(t.Context())
			killed.Go(func() { _ = doomed.Run(ctx) })
			time.Sleep(2 * time.Minute)
			if got := b.model.Calls("killer"); got != n+1 {
				t.Fatalf("%d calls after %d workers", got, n+1)
			}
			dead.Store(true)
			kill()
			time.Sleep(5 * time.Minute)
		}
		killed.Wait()
		b.run()
		time.Sleep(5 * time.Minute)
		b.halt()
		if row := b.row("killer"); row.GetReason() != "attempts_exhausted" || row.GetAttempts() != worker.MaxCalls || len(b.lineage.Attempts()) != worker.MaxCalls {
			t.Errorf("ended as %s after %d calls, %d of them recorded", row.GetReason(), row.GetAttempts(), len(b.lineage.Attempts()))
		}
		if got := b.model.Calls("killer"); got != worker.MaxCalls {
			t.Errorf("%d calls", got)
		}
	})
}

func TestCancelledJobsAreNotCalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, succeed)
		b.publish("done-before", `,"submission":"s-1"`)
		time.Sleep(time.Minute)
		b.controls.Set("s-1", worker.Cancel)
		b.publish("cancelled", `,"submission":"s-1"`)
		b.publish("done-before", `,"submission":"s-1"`)
		b.publish("another", `,"submission":"s-2"`)
		time.Sleep(time.Minute)
		b.halt()
		if row := b.row("cancelled"); row.GetOutcome() != "cancelled" || row.GetAttempts() != 0 || b.model.Calls("cancelled") != 0 {
			t.Errorf("row: %v", row)
		}
		for _, r := range b.lineage.Generations() {
			if r.GetJobId() != "cancelled" && r.GetOutcome() != "succeeded" {
				t.Errorf("%s ended as %s", r.GetJobId(), r.GetOutcome())
			}
		}
	})
}

func TestPausedJobsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, succeed)
		b.controls.Set("s-1", worker.Pause)
		b.publish("paused", `,"submission":"s-1"`)
		time.Sleep(time.Hour)
		if b.model.Calls("paused") != 0 || len(b.queue.Acked()) != 0 {
			t.Fatal("a paused job was called or acknowledged")
		}
		b.controls.Set("s-1", worker.Proceed)
		time.Sleep(time.Minute)
		b.halt()
		if got := b.row("paused").GetOutcome(); got != "succeeded" {
			t.Errorf("outcome %s", got)
		}
	})
}

func TestASecondSignalHurries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hurry := make(chan struct{})
		b := start(t, func(_ *bench, ctx context.Context, _ *jobs.Job, _ int) (*worker.Answer, error) {
			<-ctx.Done()
			return nil, &worker.CallError{Kind: worker.Unanswered, Lane: lane, Err: context.Cause(ctx)}
		}, hurry)
		b.publish("slow", "")
		time.Sleep(time.Second)
		began := time.Now()
		time.AfterFunc(3*time.Second, func() { close(hurry) })
		b.halt()
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("the stop took %s", took)
		}
	})
}

func TestErrorsDecideTheJobsFate(t *testing.T) {
	rejected := callError(worker.Rejected)
	rejected.Reason = jobs.ReasonReferenceUnavailable
	for name, c := range map[string]struct {
		err             *worker.CallError
		outcome, reason string
		calls           int
		attempts        []string
		cost            string
		fallback        bool
	}{
		"rejected":   {rejected, "failed", "reference_unavailable", 1, []string{"error"}, "0.000000000", false},
		"failing":    {callError(worker.Failing), "failed", "attempts_exhausted", 4, []string{"error", "error", "error", "error"}, "0.000000000", false},
		"unanswered": {callError(worker.Unanswered), "failed", "attempts_exhausted", 4, []string{"unknown", "unknown", "unknown", "unknown"}, "0.537624000", true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := start(t, func(*bench, context.Context, *jobs.Job, int) (*worker.Answer, error) { return nil, c.err })
				b.publish("unlucky", "")
				time.Sleep(time.Hour)
				b.halt()
				row := b.row("unlucky")
				if row.GetOutcome() != c.outcome || row.GetReason() != c.reason {
					t.Errorf("ended as %s/%s, want %s/%s", row.GetOutcome(), row.GetReason(), c.outcome, c.reason)
				}
				if n := b.model.Calls("unlucky"); n != c.calls {
					t.Errorf("called %d times, want %d", n, c.calls)
				}
				if row.GetCostUsd() != c.cost || row.GetCostIsFallback() != c.fallback {
					t.Errorf("cost %s (fallback %v), want %s (%v)", row.GetCostUsd(), row.GetCostIsFallback(), c.cost, c.fallback)
				}
				var results []string
				for _, a := range b.lineage.Attempts() {
					results = append(results, a.GetResult())
				}
				if strings.Join(results, " ") != strings.Join(c.attempts, " ") {
					t.Errorf("attempts %v, want %v", results, c.attempts)
				}
				if len(b.queue.Acked()) != 1 {
					t.Error("not acked")
				}
			})
		})
	}
}

func TestThrottlingIsWaitedThroughAndFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, func(b *bench, ctx context.Context, j *jobs.Job, n int) (*worker.Answer, error) {
			if n <= 6 {
				return nil, &worker.CallError{Kind: worker.Throttled, Status: 429, Lane: lane}
			}
			return succeed(b, ctx, j, n)
		})
		b.publish("queued", "")
		time.Sleep(time.Hour)
		b.halt()
		row := b.row("queued")
		if row.GetOutcome() != "succeeded" || row.GetAttempts() != 1 || row.GetThrottled() != 6 {
			t.Errorf("%s after %d attempts and %d throttled answers", row.GetOutcome(), row.GetAttempts(), row.GetThrottled())
		}
	})
}

// A model that can't be reached for a while costs nothing and ends no job.
func TestAnOutageOfTheModelIsWaitedThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		b := start(t, func(b *bench, ctx context.Context, j *jobs.Job, n int) (*worker.Answer, error) {
			if time.Since(began) < time.Hour {
				return nil, &worker.CallError{Kind: worker.Unreached, Lane: lane, Err: errors.New("connection refused")}
			}
			return succeed(b, ctx, j, n)
		})
		b.publish("patient", "")
		time.Sleep(2 * time.Hour)
		b.halt()
		if row := b.row("patient"); row.GetOutcome() != "succeeded" || row.GetAttempts() != 1 || row.GetCostIsFallback() {
			t.Errorf("row: %v", row)
		}
	})
}

func TestAJobDoesNotWaitForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, func(*bench, context.Context, *jobs.Job, int) (*worker.Answer, error) {
			return nil, &worker.CallError{Kind: worker.Throttled, Status: 429, Lane: lane}
		})
		b.publish("starved", "")
		time.Sleep(15 * time.Minute)
		if len(b.queue.Retried()) == 0 {
			t.Error("after 15 minutes of throttling the job was not given back")
		}
		b.halt()
		if len(b.queue.Acked()) != 0 || len(b.lineage.Generations()) != 0 {
			t.Error("a job that never ended was acked or recorded")
		}
	})
}

func TestRetryAfterIsHonoured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var second time.Time
		b := start(t, func(b *bench, ctx context.Context, j *jobs.Job, n int) (*worker.Answer, error) {
			if n == 1 {
				return nil, &worker.CallError{Kind: worker.Throttled, Status: 429, RetryAfter: 3 * time.Minute, Lane: lane}
			}
			second = time.Now()
			return b.image("x"), nil
		})
		began := time.Now()
		b.publish("later", "")
		time.Sleep(10 * time.Minute)
		b.halt()
		if waited := second.Sub(began); waited < 3*time.Minute {
			t.Errorf("called again after %s", waited)
		}
	})
}

func TestDeniedStopsTheWorkerAndKeepsTheJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, func(*bench, context.Context, *jobs.Job, int) (*worker.Answer, error) {
			return nil, &worker.CallError{Kind: worker.Denied, Status: 403, Detail: "permission aiplatform.endpoints.predict denied", Lane: lane}
		})
		b.publish("kept", "")
		err := <-b.ended
		if err == nil || !strings.Contains(err.Error(), "aiplatform.endpoints.predict") {
			t.Fatalf("Run returned %v", err)
		}
		if b.queue.Waiting() != 1 {
			t.Error("the job is not waiting for another worker")
		}
		// Another worker with the permission serves it at once: the claim was released.
		b.model.Answer = func(ctx context.Context, j *jobs.Job, n int) (*worker.Answer, error) { return succeed(b, ctx, j, n) }
		b.run()
		b.queue.Publish([]byte(`{"id":"wake","prompt":"x"}`), nil)
		time.Sleep(time.Minute)
		b.halt()
		if got := b.row("kept").GetOutcome(); got != "succeeded" {
			t.Errorf("outcome %s", got)
		}
	})
}

func TestStopLetsCallsInFlightEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, succeed)
		b.publish("in-flight", "")
		time.Sleep(time.Second)
		if err := b.halt(); err != nil {
			t.Fatal(err)
		}
		if got := b.row("in-flight").GetOutcome(); got != "succeeded" || len(b.queue.Acked()) != 1 {
			t.Errorf("outcome %s, acked %v", got, b.queue.Acked())
		}
	})
}

func TestStopCutsOffCallsBeyondTheGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, func(_ *bench, ctx context.Context, _ *jobs.Job, _ int) (*worker.Answer, error) {
			<-ctx.Done()
			return nil, &worker.CallError{Kind: worker.Unanswered, Lane: lane, Err: context.Cause(ctx)}
		})
		b.publish("endless", "")
		time.Sleep(time.Second)
		began := time.Now()
		if err := b.halt(); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != worker.DefaultGrace {
			t.Errorf("the stop took %s, want the grace of %s", took, worker.DefaultGrace)
		}
		// The next worker knows of the call that may have been paid.
		s, err := workertest.Alive(t, b.ledger.Open("w2", nil)).Claim(t.Context(), "endless", digestOf(t, `{"id":"endless","prompt":"a red fox"}`))
		if err != nil || s.State != worker.Granted || s.Spent.Calls != 1 || !s.Spent.Fallback {
			t.Errorf("claim after the stop: %+v, %v", s, err)
		}
	})
}

func digestOf(t *testing.T, message string) jobs.Digest {
	t.Helper()
	return jobOf(t, message).Digest()
}

func jobOf(t *testing.T, message string) *jobs.Job {
	t.Helper()
	m := &schemas.Job{}
	if err := schemas.Unmarshal([]byte(message), m); err != nil {
		t.Fatal(err)
	}
	j, err := jobs.DefaultCatalogue().Parse(m)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func TestBadMessagesAreBuriedWithARowAndTheirNeighboursGoOn(t *testing.T) {
	big := `{"prompt":"` + strings.Repeat("x", 9<<20) + `"}`
	for name, c := range map[string]struct{ data, reason, detail string }{
		"not json":            {"hello", "invalid_message", "syntax error"},
		"not utf-8":           {"{\"prompt\":\"caf\xe9\"}", "invalid_message", "UTF-8"},
		"unknown field":       {`{"prompt":"x","promt":"y"}`, "invalid_message", `"promt"`},
		"wrong type":          {`{"prompt":7}`, "invalid_message", "prompt"},
		"no prompt":           {`{"id":"nothing"}`, "invalid_job", "prompt is missing"},
		"unknown model":       {`{"prompt":"x","model":"dall-e-3"}`, "invalid_job", "gemini-3-pro-image"},
		"nul":                 {`{"prompt":"a\u0000b"}`, "invalid_job", "NUL"},
		"path in the id":      {`{"id":"../etc","prompt":"x"}`, "invalid_job", "id "},
		"9 MB":                {big, "invalid_job", "at most 98304"},
		"batch, no attribute": {`{"prompt":"x","mode":"batch"}`, "invalid_job", "attribute mode"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := start(t, succeed)
				b.publish("before", "")
				id := b.queue.Publish([]byte(c.data), map[string]string{"origin": "erp"})
				b.publish("after", "")
				time.Sleep(time.Minute)
				b.halt()
				for _, neighbour := range []string{"before", "after"} {
					if got := b.row(neighbour).GetOutcome(); got != "succeeded" {
						t.Errorf("neighbour %s ended as %s", neighbour, got)
					}
				}
				dead := b.queue.Dead()
				if len(dead) != 1 || dead[0].ID != id || string(dead[0].Verdict.Reason) != c.reason || string(dead[0].Data) != c.data {
					t.Fatalf("dead letters: %d", len(dead))
				}
				row := b.row(jobs.InvalidID(id, []byte(c.data)))
				if row.GetOutcome() != "failed" || row.GetReason() != c.reason || !strings.Contains(row.GetDetail(), c.detail) {
					t.Errorf("row %s/%s: %s; want %s with %q", row.GetOutcome(), row.GetReason(), row.GetDetail(), c.reason, c.detail)
				}
				if row.GetMessageId() != id {
					t.Errorf("row has message id %s, want %s", row.GetMessageId(), id)
				}
			})
		})
	}
}

func TestAnIDWithOtherContentIsAConflictNotAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, succeed)
		b.publish("same", "")
		time.Sleep(time.Minute)
		other := []byte(`{"id":"same","prompt":"something else"}`)
		id := b.queue.Publish(other, nil)
		time.Sleep(time.Minute)
		b.halt()
		if b.model.Calls("same") != 1 || b.row("same").GetPrompt() != "a red fox" {
			t.Error("the first job was disturbed")
		}
		row := b.row(jobOf(t, string(other)).ConflictID())
		if row.GetReason() != "id_conflict" || row.GetMessageId() != id || !strings.Contains(row.GetDetail(), "same") {
			t.Errorf("row: %v", row)
		}
		if len(b.queue.Dead()) != 1 {
			t.Error("no dead letter")
		}
	})
}

func TestARowThatCanNeverBeStoredIsKeptAsADeadLetter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, succeed)
		b.refuseRows.Store(true)
		b.publish("odd", "")
		time.Sleep(time.Hour)
		b.halt()
		if dead := b.queue.Dead(); len(dead) != 1 || dead[0].Verdict.Reason != jobs.ReasonRowRefused || b.model.Calls("odd") != 1 {
			t.Errorf("%d dead letters after %d calls", len(dead), b.model.Calls("odd"))
		}
	})
}

func TestALateJobIsNotCalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, succeed)
		b.publish("late", `,"deadline":"1999-12-31T00:00:00Z"`)
		time.Sleep(time.Minute)
		b.halt()
		if row := b.row("late"); row.GetReason() != "deadline_passed" || row.GetAttempts() != 0 || b.model.Calls("late") != 0 {
			t.Errorf("%s after %d calls", row.GetReason(), b.model.Calls("late"))
		}
	})
}

func TestUselessAnswersAreTriedAgainWithinTheBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, func(b *bench, _ context.Context, _ *jobs.Job, n int) (*worker.Answer, error) {
			return &worker.Answer{Reason: jobs.ReasonBadAnswer, FinishReason: "MAX_TOKENS", Detail: "cut short", Usage: jobs.Usage{Text: 100}}, nil
		})
		b.publish("useless", "")
		time.Sleep(time.Hour)
		b.halt()
		row := b.row("useless")
		if row.GetOutcome() != "failed" || row.GetReason() != "bad_answer" || row.GetAttempts() != worker.MaxCalls || row.GetFinishReason() != "MAX_TOKENS" {
			t.Errorf("row: %v", row)
		}
	})
}

func TestAPanicKeepsTheJobAndTheWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, func(b *bench, ctx context.Context, j *jobs.Job, n int) (*worker.Answer, error) {
			if n == 1 {
				panic("a bug")
			}
			return succeed(b, ctx, j, n)
		})
		b.publish("robust", "")
		time.Sleep(time.Minute)
		b.halt()
		if got := b.row("robust").GetOutcome(); got != "succeeded" {
			t.Errorf("outcome %s", got)
		}
	})
}

func TestSecondImageIsDiscardedForTheStoredOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, func(b *bench, _ context.Context, j *jobs.Job, n int) (*worker.Answer, error) {
			return b.image("second"), nil
		})
		// What a worker stored before it lost its claim.
		m := &schemas.Job{Id: "raced", Prompt: "a red fox"}
		j, err := jobs.DefaultCatalogue().Parse(m)
		if err != nil {
			t.Fatal(err)
		}
		first := b.image("first!")
		if _, err := b.assets.Store(t.Context(), j, first.Image); err != nil {
			t.Fatal(err)
		}
		crc := first.Image.Blob.CRC32C()
		first.Image.Blob.Release()
		b.publish("raced", "")
		time.Sleep(time.Minute)
		b.halt()
		if got := string(b.assets.Objects()["keep/default/raced"].Content); got != "first!" {
			t.Errorf("stored %q", got)
		}
		if got := b.row("raced").GetAssetCrc32C(); got != worker.EncodeCRC32C(crc) {
			t.Errorf("row says %s, the stored object is %s", got, worker.EncodeCRC32C(crc))
		}
	})
}
