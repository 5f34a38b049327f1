package batch_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/assetmill/assetmill/internal/blob"
	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
	"github.com/assetmill/assetmill/worker"
	"github.com/assetmill/assetmill/worker/batch"
	"github.com/assetmill/assetmill/worker/batch/batchtest"
)

// firstTime lets rows be as planned when their prompt comes for the first time, and well ever after.
func firstTime(plan map[string]batchtest.Row) func(batchtest.Request) batchtest.Row {
	seen := map[string]bool{}
	return func(r batchtest.Request) batchtest.Row {
		if seen[r.Prompt] {
			return batchtest.Row{}
		}
		seen[r.Prompt] = true
		return plan[r.Prompt]
	}
}

func count(n int64) *int64 { return &n }

const (
	image   = int64(67_210_000) // nano-dollars: an image with its usual prompt in a batch
	refused = int64(10_000)     // a refusal
)

func TestEachKindOfRow(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		row  batchtest.Row
		want *schemas.BatchRow // its counts, of a batch of one job
		cost int64             // nano-dollars
		// how the job ends, and by how many calls
		reason   jobs.Reason
		attempts int64
	}{
		{"image", batchtest.Row{}, &schemas.BatchRow{Done: count(1)}, image, jobs.ReasonImage, 1},
		{"image without counts", batchtest.Row{NoUsage: true}, &schemas.BatchRow{Done: count(1)}, 67_203_000, jobs.ReasonImage, 1},
		{"blocked prompt", batchtest.Row{Reason: jobs.ReasonPromptFilter}, &schemas.BatchRow{Refused: count(1)}, refused, jobs.ReasonPromptFilter, 1},
		{"blocked, without counts", batchtest.Row{Reason: jobs.ReasonPromptFilter, NoUsage: true}, &schemas.BatchRow{Refused: count(1)}, 3_000, jobs.ReasonPromptFilter, 1},
		{"blocked image", batchtest.Row{Reason: jobs.ReasonOutputFilter, NoUsage: true}, &schemas.BatchRow{Refused: count(1)}, 67_203_000, jobs.ReasonOutputFilter, 1},
		{"useless answer", batchtest.Row{Reason: jobs.ReasonBadAnswer}, &schemas.BatchRow{Requeued: count(1)}, refused, jobs.ReasonImage, 2},
		{"rejected", batchtest.Row{Status: "rejected: Bad Request"}, &schemas.BatchRow{Failed: count(1)}, 0, jobs.ReasonRejected, 1},
		{"failed", batchtest.Row{Status: "failing: Internal"}, &schemas.BatchRow{Requeued: count(1)}, 0, jobs.ReasonImage, 2},
		{"throttled", batchtest.Row{Status: "throttled: busy"}, &schemas.BatchRow{Requeued: count(1)}, 0, jobs.ReasonImage, 1},
		{"missing", batchtest.Row{Missing: true}, &schemas.BatchRow{Requeued: count(1), Missing: count(1)}, 0, jobs.ReasonImage, 2},
		{"four times", batchtest.Row{Copies: 3}, &schemas.BatchRow{Done: count(1), Duplicated: count(3)}, 4 * image, jobs.ReasonImage, 1},
		{"without labels", batchtest.Row{NoLabels: true}, &schemas.BatchRow{Done: count(1)}, image, jobs.ReasonImage, 1},
		{"labels of another row", batchtest.Row{Labels: "000017"}, &schemas.BatchRow{Done: count(1)}, image, jobs.ReasonImage, 1},
		{"labels of no row", batchtest.Row{Labels: "9x9-01"}, &schemas.BatchRow{Done: count(1)}, image, jobs.ReasonImage, 1},
		{"cut in the response", batchtest.Row{Damage: batchtest.Cut}, &schemas.BatchRow{Requeued: count(1), Damaged: count(1)}, 67_203_000, jobs.ReasonImage, 2},
		{"bad base64", batchtest.Row{Damage: batchtest.Base64}, &schemas.BatchRow{Requeued: count(1), Damaged: count(1)}, 67_203_000, jobs.ReasonImage, 2},
		{"cut in the request", batchtest.Row{Damage: batchtest.CutHead}, &schemas.BatchRow{Requeued: count(1), Damaged: count(1), Orphans: count(1), Missing: count(1)}, 0, jobs.ReasonImage, 2},
		{"garbage", batchtest.Row{Damage: batchtest.Garbage}, &schemas.BatchRow{Requeued: count(1), Damaged: count(1), Orphans: count(1), Missing: count(1)}, 0, jobs.ReasonImage, 2},
		{"cut, and once more whole", batchtest.Row{Damage: batchtest.Cut, Copies: 1}, &schemas.BatchRow{Done: count(1), Damaged: count(1), Duplicated: count(1)}, image + 67_203_000, jobs.ReasonImage, 1},
		{"with one that nobody asked for", batchtest.Row{Orphan: true}, &schemas.BatchRow{Done: count(1), Orphans: count(1)}, 2 * image, jobs.ReasonImage, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, rangeBytes := range []int64{100, 1 << 20} {
				inWorld(t, func(t *testing.T, w *world) {
					w.run.RangeBytes = rangeBytes
					w.vertex.Row = firstTime(map[string]batchtest.Row{"a red fox": tt.row})
					p := w.start("w1", nil)
					w.publish("fox", "a red fox", "")
					reasons := w.closeBooks(3*time.Hour, map[string]string{"fox": "a red fox"}, p)
					row := w.row("fox")
					if reasons[string(tt.reason)] != 1 || row.GetAttempts() != tt.attempts || int64(len(w.lineage.Attempts())) != tt.attempts {
						t.Errorf("ended: %v after %d calls (%d rows)", reasons, row.GetAttempts(), len(w.lineage.Attempts()))
					}
					got := w.closed()[0]
					checkCounts(t, got, tt.want)
					if got.GetCostUsd() != jobs.USD(tt.cost).String() {
						t.Errorf("the batch's cost is %s, want %s", got.GetCostUsd(), jobs.USD(tt.cost))
					}
					if tt.reason == jobs.ReasonImage && tt.attempts == 1 && tt.cost == image && row.GetCostUsd() != jobs.USD(image).String() {
						t.Errorf("the row's cost is %s", row.GetCostUsd())
					}
				})
			}
		})
	}
}

func TestOrphansAreKept(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.run.RangeBytes = 200
		w.vertex.Plan = func(string, int) batchtest.Plan { return batchtest.Plan{Shards: 2} }
		w.vertex.Row = firstTime(map[string]batchtest.Row{"prompt 3.": {Orphan: true}, "prompt 4.": {Damage: batchtest.Garbage}, "prompt 5.": {Orphan: true}})
		p := w.start("w1", nil)
		w.publishMany(10)
		w.closeBooks(3*time.Hour, prompts(10), p)
		files, err := w.files.List(t.Context(), "batches/"+w.batchID()+"/orphans/")
		if err != nil || len(files) != 3 {
			t.Fatalf("%v, %v", files, err)
		}
		kept := map[string]bool{}
		for _, f := range files {
			r, err := w.files.Open(t.Context(), f.Name, 0, -1)
			if err != nil {
				t.Fatal(err)
			}
			data, _ := io.ReadAll(r)
			for _, part := range []string{"nobody's prompt 3.", "nobody's prompt 5.", "xxxxxxxx"} {
				if strings.Contains(string(data), part) && !strings.Contains(string(data), "\n") {
					kept[part] = true
				}
			}
		}
		if len(kept) != 3 {
			t.Errorf("kept: %v", kept)
		}
	})
}

// Rows of equal requests whose labels are lost can't be told apart; each must still get an image of its own.
func TestEqualRequestsWithoutLabels(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		row  func(n int) batchtest.Row // of the n-th of 30 equal requests
		want *schemas.BatchRow         // of those, and 10 others
	}{
		{"all", func(int) batchtest.Row { return batchtest.Row{NoLabels: true} }, &schemas.BatchRow{Done: count(40)}},
		{"some", func(n int) batchtest.Row { return batchtest.Row{NoLabels: n%3 == 0} }, &schemas.BatchRow{Done: count(40)}},
		{"all, and some are there twice", func(n int) batchtest.Row {
			return batchtest.Row{NoLabels: true, Copies: n % 2}
		}, &schemas.BatchRow{Done: count(40), Duplicated: count(15)}},
		{"all, and some make up for those that are missing", func(n int) batchtest.Row {
			return batchtest.Row{NoLabels: true, Copies: min(n%3, 1), Missing: n%3 == 0}
		}, &schemas.BatchRow{Done: count(40), Duplicated: count(10)}},
		{"all, and some failed", func(n int) batchtest.Row {
			return []batchtest.Row{{NoLabels: true, Status: "failing: Internal"}, {NoLabels: true}, {NoLabels: true}}[n%3]
		}, &schemas.BatchRow{Done: count(30), Requeued: count(10)}},
		{"some, damaged or refused", func(n int) batchtest.Row {
			return []batchtest.Row{{}, {NoLabels: true, Damage: batchtest.Cut}, {NoLabels: true, Reason: jobs.ReasonNoImage}}[n%3]
		}, &schemas.BatchRow{Done: count(20), Refused: count(10), Requeued: count(10), Damaged: count(10)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			inWorld(t, func(t *testing.T, w *world) {
				w.gather.Rows, w.run.RangeBytes = 40, 700
				n := 0
				w.vertex.Row = func(r batchtest.Request) batchtest.Row {
					if r.Prompt != "same" {
						return batchtest.Row{NoLabels: true}
					}
					if n++; n <= 30 {
						return tt.row(n - 1)
					}
					return batchtest.Row{}
				}
				first := w.start("w1", nil)
				all := prompts(10)
				w.publishMany(10)
				for i := range 30 {
					id := fmt.Sprint("same-", i)
					all[id] = "same"
					w.publish(id, "same", "")
				}
				until(time.Hour, func() bool { return len(w.sizes()) == 1 })
				second, third := w.start("w2", nil), w.start("w3", nil)
				w.closeBooks(5*time.Hour, all, first, second, third)
				checkCounts(t, w.closed()[0], tt.want)
				used := map[string]bool{}
				for _, o := range w.assets.Objects() {
					used[string(o.Content)] = true
				}
				if len(used) != len(w.assets.Objects()) {
					t.Errorf("%d different images in %d assets", len(used), len(w.assets.Objects()))
				}
			})
		})
	}
}

// checkCounts checks the counts of a batch's row. Those that are not wanted have to be 0.
func checkCounts(t *testing.T, row, want *schemas.BatchRow) {
	t.Helper()
	got := &schemas.BatchRow{
		Done: row.Done, Refused: row.Refused, Failed: row.Failed, Requeued: row.Requeued, Missing: row.Missing, Duplicated: row.Duplicated,
		Orphans: row.Orphans, Damaged: row.Damaged,
	}
	all := &schemas.BatchRow{
		Done: count(0), Refused: count(0), Failed: count(0), Requeued: count(0), Missing: count(0), Duplicated: count(0), Orphans: count(0), Damaged: count(0),
	}
	proto.Merge(all, want)
	if diff := cmp.Diff(all, got, protocmp.Transform()); diff != "" {
		t.Errorf("batch (-want +got):\n%s", diff)
	}
}

// One image fits into memory at a time, and many ranges are collected at once.
func TestASmallByteBudgetDoesNotBlock(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.budget = blob.NewBudget(20)
		w.run.RangeBytes, w.run.Concurrency = 300, 8
		w.vertex.Row = func(batchtest.Request) batchtest.Row { return batchtest.Row{Copies: 1} }
		workers := []*process{w.start("w1", nil), w.start("w2", nil)}
		w.publishMany(100)
		w.closeBooks(3*time.Hour, prompts(100), workers...)
	})
}

// A worker is killed when a row's job has ended with one of its two lines, and lineage does not know yet. Lines are collected side by side, so
// that the other line may come first when the range is collected again.
func TestAnEndIsMadeKnownByAnyOfARowsLines(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.run.Concurrency = 1
		w.vertex.Row = func(batchtest.Request) batchtest.Row { return batchtest.Row{Copies: 1} }
		killed := w.start("w1", func(op, subject string, _ int) fault {
			if op == "generation" && subject == "job-0" {
				return killBefore
			}
			return fine
		})
		w.publishMany(1)
		w.await(killed.dead.Load)
		files, err := w.files.List(t.Context(), "batches/"+w.batchID()+"/output/")
		if err != nil || len(files) != 1 {
			t.Fatalf("output %v: %v", files, err)
		}
		output, generation, err := w.files.Read(t.Context(), files[0].Name)
		if err != nil {
			t.Fatal(err)
		}
		lines := slices.Collect(bytes.Lines(output))
		slices.Reverse(lines)
		if len(lines) != 2 || bytes.Equal(lines[0], lines[1]) {
			t.Fatalf("lines %q", lines)
		}
		if _, err := w.files.Swap(t.Context(), files[0].Name, generation, bytes.Join(lines, nil)); err != nil {
			t.Fatal(err)
		}
		next := w.start("w2", nil)
		w.closeBooks(3*time.Hour, prompts(1), next)
	})
}

func TestServicesThatAreDownDelayAndLoseNothing(t *testing.T) {
	t.Parallel()
	for _, op := range []string{"store", "finish", "generation", "attempt", "result", "open", "read", "list", "swap", "look", "release", "publish again", "hand off", "batch", "get job", "claim", "read seal"} {
		t.Run(op, func(t *testing.T) {
			t.Parallel()
			inWorld(t, func(t *testing.T, w *world) {
				w.run.RangeBytes = 500
				w.vertex.Row = firstTime(map[string]batchtest.Row{"prompt 3.": {Missing: true}, "prompt 4.": {Copies: 2}})
				from, to := time.Now().Add(3*time.Minute), time.Now().Add(40*time.Minute)
				p := w.start("w1", func(o, _ string, _ int) fault {
					if o == op && time.Now().After(from) && time.Now().Before(to) {
						return failBefore
					}
					return fine
				})
				w.publishMany(20)
				w.closeBooks(6*time.Hour, prompts(20), p)
				w.closed()
				if n := len(w.vertex.Jobs("")); n != 2 {
					t.Errorf("%d Vertex jobs", n)
				}
			})
		})
	}
}

// poison is a spine with a bug that one job brings out.
type poison struct {
	batch.Spine
	job string
	bad *atomic.Bool
}

func (s poison) Conclude(ctx context.Context, c worker.Conclusion) (bool, worker.Spent, error) {
	if c.Job.ID == s.job && s.bad.Load() {
		panic("bug")
	}
	return s.Spine.Conclude(ctx, c)
}

func TestAPanicInARowHoldsUpItsBatchAlone(t *testing.T) {
	t.Parallel()
	for _, prompt := range []string{"prompt 3.", "prompt 4."} { // an image, and a row that is missing
		t.Run(prompt, func(t *testing.T) {
			t.Parallel()
			inWorld(t, func(t *testing.T, w *world) {
				w.run.RangeBytes = 500
				w.vertex.Row = firstTime(map[string]batchtest.Row{"prompt 4.": {Missing: true}})
				var bad atomic.Bool
				bad.Store(true)
				p := w.open("w1", nil)
				p.spineOf = func(s batch.Spine) batch.Spine { return poison{s, "job-" + prompt[7:8], &bad} }
				p.runner = p.newRunner(vertexPort{p})
				p.begin()
				w.publishMany(20)
				time.Sleep(3 * time.Hour)
				if c := w.closed(); c != nil {
					t.Errorf("closed: %v", c)
				}
				bad.Store(false)
				w.closeBooks(3*time.Hour, prompts(20), p)
			})
		})
	}
}

func TestARowThatLineageRefusesHoldsUpNothing(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.lineage.Hook = func(op, job string) error {
			if job == "job-3" {
				return fmt.Errorf("append: %w", worker.ErrRowRefused)
			}
			return nil
		}
		p := w.start("w1", nil)
		w.publishMany(20)
		all := prompts(20)
		delete(all, "job-3")
		w.closeBooks(3*time.Hour, all, p)
		// Its message is kept, with the reason.
		if dead := w.queue.Batch.Dead(); len(dead) != 1 || dead[0].Verdict.Reason != jobs.ReasonRowRefused {
			t.Errorf("dead letters: %v", dead)
		}
		if c := w.closed(); len(c) != 1 || c[0].GetDone() != 20 {
			t.Errorf("closed: %v", c)
		}
	})
}

// A worker is killed when it has given back some jobs, and has not noted it.
func TestAPassThatIsRepeatedCountsTheSame(t *testing.T) {
	t.Parallel()
	for _, then := range []batch.Then{batch.ThenOnline, batch.ThenDrop} {
		t.Run(string(then), func(t *testing.T) {
			t.Parallel()
			inWorld(t, func(t *testing.T, w *world) {
				w.vertex.Plan = func(string, int) batchtest.Plan { return batchtest.Plan{Run: 2 * time.Hour} }
				var passed atomic.Int64
				op := map[batch.Then]string{batch.ThenOnline: "release", batch.ThenDrop: "finish"}[then]
				killed := w.start("w1", func(o, subject string, _ int) fault {
					if o == op && strings.HasPrefix(subject, "job-") {
						passed.Add(1)
					}
					if o == "swap" && strings.HasSuffix(subject, "state.json") && passed.Load() == 20 {
						return killBefore
					}
					return fine
				})
				w.publishMany(20)
				time.Sleep(10 * time.Minute)
				if err := batch.Cancel(t.Context(), w.files, w.batchID(), then); err != nil {
					t.Fatal(err)
				}
				w.await(killed.dead.Load)
				next := w.start("w2", nil)
				w.closeBooks(3*time.Hour, prompts(20), next)
				want := map[batch.Then]int64{batch.ThenOnline: 20}[then]
				if c := w.closed()[0]; c.GetRequeued() != want || c.GetFailed() != 20-want {
					t.Errorf("closed: %v", c)
				}
			})
		})
	}
}

func TestABatchWhoseRowIsRefusedGoesOn(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.refuseBatches = true
		p := w.start("w1", nil)
		w.publishMany(20)
		w.closeBooks(3*time.Hour, prompts(20), p)
	})
}

func TestAJobOutOfCallsEnds(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		row  batchtest.Row
		kind worker.Kind // of online calls
	}{{"failing", batchtest.Row{Status: "failing: Internal"}, worker.Failing}, {"missing", batchtest.Row{Missing: true}, worker.Unanswered}} {
		for _, then := range []batch.Then{batch.ThenOnline, batch.ThenBatch} {
			t.Run(tt.name+" "+string(then), func(t *testing.T) {
				t.Parallel()
				inWorld(t, func(t *testing.T, w *world) {
					w.run.Spill = then
					w.vertex.Row = func(batchtest.Request) batchtest.Row { return tt.row }
					w.online.Answer = func(context.Context, *jobs.Job, int) (*worker.Answer, error) {
						return nil, &worker.CallError{Kind: tt.kind, Err: errors.New("no")}
					}
					p := w.start("w1", nil)
					w.publishMany(5)
					if n := w.closeBooks(24*time.Hour, prompts(5), p)[string(jobs.ReasonAttemptsExhausted)]; n != 5 {
						t.Errorf("%d jobs ended for want of calls", n)
					}
					for id := range prompts(5) {
						if r := w.row(id); r.GetAttempts() != worker.MaxCalls || w.online.Calls(id) != 2 {
							t.Errorf("%s: %d calls, %d of them online", id, r.GetAttempts(), w.online.Calls(id))
						}
					}
				})
			})
		}
	}
}

func TestAJobThatCantWaitForAnotherBatchGoesOnline(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.vertex.Row = firstTime(map[string]batchtest.Row{"a": {Missing: true}, "b": {Missing: true}})
		p := w.start("w1", nil)
		w.publish("patient", "a", fmt.Sprintf(`,"deadline":%q`, time.Now().Add(jobs.BatchTime+2*time.Hour).Format(time.RFC3339)))
		w.publish("hasty", "b", fmt.Sprintf(`,"deadline":%q`, time.Now().Add(jobs.BatchTime+time.Minute).Format(time.RFC3339)))
		w.closeBooks(3*time.Hour, map[string]string{"patient": "a", "hasty": "b"}, p)
		if w.online.Calls("patient") != 0 || w.online.Calls("hasty") != 1 {
			t.Errorf("online: %d, %d", w.online.Calls("patient"), w.online.Calls("hasty"))
		}
	})
}

var large = flag.Int("large", 0, "jobs of TestLarge; 0: 4,000, or 2,000 with -short")

// TestLarge is one batch with everything wrong with it at the rates that the issue names.
func TestLarge(t *testing.T) {
	n := *large
	if n == 0 {
		if n = 4_000; testing.Short() {
			n = 2000
		}
	}
	inWorld(t, func(t *testing.T, w *world) {
		w.gather.Rows, w.run.RangeBytes = n, 1<<20
		w.budget = blob.NewBudget(1 << 20)
		serial := 0
		lies := map[string]int64{}
		first := map[string]bool{}
		w.vertex.Row = func(r batchtest.Request) (row batchtest.Row) {
			if first[r.Prompt] {
				return row
			}
			first[r.Prompt] = true
			switch serial++; {
			case serial%1000 == 7:
				row.Damage = batchtest.Damage(1 + serial/1000%4)
				lies["damaged"]++
			case serial%100 == 11:
				row.Copies = 1
				lies["duplicated"]++
			case serial%100 == 22:
				row.Missing = true
				lies["missing"]++
			case serial%100 == 33:
				row.Status = "failing: Internal"
				lies["failed"]++
			case serial%100 == 44:
				row.NoLabels = true
			}
			return row
		}
		workers := []*process{w.start("w1", nil), w.start("w2", nil)}
		w.publishMany(n)
		began := time.Now()
		if made := w.closeBooks(24*time.Hour, prompts(n), workers...)["image"]; made != n {
			t.Errorf("%d images", made)
		}
		c := w.closed()
		total := map[string]int64{}
		for _, r := range c {
			total["damaged"] += r.GetDamaged()
			total["duplicated"] += r.GetDuplicated()
			total["done"] += r.GetDone()
		}
		if total["damaged"] != lies["damaged"] || total["duplicated"] != lies["duplicated"] || total["done"] != int64(n) {
			t.Errorf("found %v, planned %v", total, lies)
		}
		// A duplicate may have stored the image of the line that ended its job; then both make the end known.
		if rows := len(w.lineage.Generations()); rows < n || rows > n+int(lies["duplicated"])/2 {
			t.Errorf("%d rows in lineage", rows)
		}
		t.Logf("%d batches in %s of virtual time: %v", len(c), time.Since(began), total)
	})
}
