package main

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/assetmill/assetmill/worker"
	"github.com/assetmill/assetmill/worker/batch"
	"github.com/assetmill/assetmill/worker/batch/batchtest"
)

func TestBatchUsage(t *testing.T) {
	t.Parallel()
	for want, args := range map[string][]string{
		"needs the id of a batch":                         {"show"},
		`"../b-1" is no id of a batch`:                    {"show", "../b-1"},
		`"s-4kq2vzsh7yxgq5iawbnm" is no id of a batch`:    {"cancel", "s-4kq2vzsh7yxgq5iawbnm", "--then", "drop"},
		"say what becomes of the jobs":                    {"cancel", "b-1"},
		`"burn" is unknown; allowed: online, batch, drop`: {"cancel", "b-1", "--then", "burn"},
		"--since is 0s":                                   {"list", "--since", "0"},
		"needs no arguments":                              {"list", "all"},
		"needs the id of a batch, or several":             {"resume"},
		`"b-1,b-2" is no id of a batch`:                   {"resume", "b-1", "b-1,b-2"},
	} {
		if code, _, errOut := runAlone(t, nil, "", append([]string{"batch"}, args...)...); code != exitUsage || !strings.Contains(errOut, want) {
			t.Errorf("%v: code %d, %s", args, code, errOut)
		}
	}
}

// batchStatus is a batch whose Vertex job runs, changed as the test needs it.
func batchStatus(change func(*batch.Status)) *batch.Status {
	st := &batch.Status{
		Manifest: batch.Manifest{
			ID: "b-1", Gatherer: "w1", Region: "global", Rows: 25_000, SealedAt: time.Date(2026, 11, 23, 17, 45, 0, 0, time.UTC),
			Lane: worker.Lane{Name: "batch", Project: "mill", Location: "global", Model: "gemini-3-pro-image"},
		},
		State: batch.State{Phase: batch.Running, Job: "projects/1/locations/global/batchPredictionJobs/17", JobState: "RUNNING"},
	}
	change(st)
	return st
}

func TestBatchShow(t *testing.T) {
	t.Parallel()
	running := batchStatus(func(*batch.Status) {})
	stepped := batchStatus(func(st *batch.Status) { st.Stepped = st.SealedAt.Add(65 * time.Minute) })
	closed := batchStatus(func(st *batch.Status) {
		st.Phase, st.Reason, st.Then = batch.Closed, "complete", batch.ThenBatch
		st.Ranges, st.Collected = make([]batch.Range, 7), 7
		st.Totals = &batch.Totals{Ends: batch.Ends{Done: 24_000, Refused: 900, Requeued: 100}, Duplicated: 3, Cost: 1_680_000_000_000, Online: 3_220_000_000_000}
	})
	for _, test := range []struct {
		st    *batch.Status
		after time.Duration // since it was sealed
		json  bool
		want  []string
	}{
		{running, 50 * time.Minute, false, []string{"last step     2026-11-23 17:45:00\n"}},
		{running, 2 * time.Hour, false, []string{"last step     2026-11-23 17:45:00: it stands still; if workers run, its hand-off is lost"}},
		{running, 2 * time.Hour, true, []string{`"last_step_at": "2026-11-23T17:45:00Z"`, `"stands_still": true`}},
		{stepped, 2 * time.Hour, false, []string{"last step     2026-11-23 18:50:00\n"}},
		{closed, 2 * time.Hour, false, []string{"last step         2026-11-23 17:45:00\n"}},
		{running, 0, false, []string{"phase         running", "jobs          25000", "link          https://console.cloud.google.com/vertex-ai/locations/global/batch-predictions/17?project=mill"}},
		{running, 0, true, []string{`"phase": "running"`, `"vertex_job": "projects/1/locations/global/batchPredictionJobs/17"`, `"sealed_at": "2026-11-23T17:45:00Z"`}},
		{closed, 0, false, []string{"7 of 7 collected", "24000 done, 900 refused, 0 failed, 100 requeued", "3 too many", "$1680.00; 24000 images online would have cost $3220.00", "into another batch"}},
		{closed, 0, true, []string{`"done": 24000`, `"cost_usd": "1680.000000000"`, `"ranges_collected": 7`}},
	} {
		var out strings.Builder
		a := &app{streams: streams{out: &out}}
		if err := a.printBatch(newBatchJSON(test.st, test.st.SealedAt.Add(test.after)), test.json); err != nil {
			t.Fatal(err)
		}
		for _, want := range test.want {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%q is missing in:\n%s", want, out.String())
			}
		}
	}
}

func TestBatchCancel(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		change func(*batch.Status)
		then   batch.Then
		fails  string // empty: it is cancelled
		says   string
	}{
		{func(*batch.Status) {}, batch.ThenOnline, "", "Its Vertex job is RUNNING; rows that are made until it ends are paid for and kept. Of its 25000 jobs those that are not made go online."},
		{func(st *batch.Status) { st.Phase, st.Job = batch.Gathered, "" }, batch.ThenDrop, "", "It has no Vertex job yet, and will get none. Of its 25000 jobs those that are not made go nowhere"},
		{func(st *batch.Status) { st.GivenUp, st.Detail, st.Then = "stuck", "too slow", batch.ThenOnline }, batch.ThenDrop, "is being cancelled already (too slow), and its jobs go to: online", ""},
		{func(st *batch.Status) { st.Phase, st.Reason = batch.Collecting, "partial" }, batch.ThenDrop, "its Vertex job has ended (partial)", ""},
		{func(st *batch.Status) { st.Phase, st.Reason = batch.Closed, "complete" }, batch.ThenDrop, "is closed: it ended as complete", ""},
	} {
		var out strings.Builder
		a, files := &app{streams: streams{out: &out}}, &batchtest.Files{}
		err := a.batchCancel(t.Context(), files, batchStatus(test.change), test.then, false)
		_, written, _ := files.Read(t.Context(), "batches/b-1/cancel.json")
		if test.fails == "" && (err != nil || written == 0) || test.fails != "" && (err == nil || !strings.Contains(err.Error(), test.fails) || written != 0) {
			t.Errorf("%v, written %d; want %q", err, written, test.fails)
		}
		if !strings.Contains(out.String(), test.says) {
			t.Errorf("%q is missing in:\n%s", test.says, out.String())
		}
	}
}

func TestBatchTable(t *testing.T) {
	t.Parallel()
	columns := []string{"gathered_at", "saved_usd", "cost_usd", "duplicated", "requeued", "failed", "refused", "done", "jobs", "model", "reason", "state", "batch_id", "more"}
	rows := [][]any{{"2026-11-23T17:45:00.5Z", "1540.123456789", "1680", int64(3), int64(100), nil, int64(900), int64(24_000), int64(25_000), "m", nil, "closed", "b-1", "x"}}
	for _, test := range []struct {
		rows [][]any
		want []string
	}{
		{rows, []string{"batch  state", "b-1    closed            m      25000  24000  900", "1680.00   1540.12    2026-11-23 17:45:00"}},
		{nil, []string{"There are no batches."}},
	} {
		var out strings.Builder
		a := &app{streams: streams{out: &out}}
		left := test.rows
		err := a.printBatches(columns, func() ([]any, error) {
			if len(left) == 0 {
				return nil, io.EOF
			}
			row := left[0]
			left = left[1:]
			return row, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range test.want {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%q is missing in:\n%s", want, out.String())
			}
		}
	}
}

func TestBatchesThatAreNone(t *testing.T) {
	t.Parallel()
	for want, seal := range map[string]worker.Seal{"was never sent": {Void: true}, "there is no batch b-1": {}} {
		if err := sealed("b-1", seal); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if err := sealed("b-1", worker.Seal{Sealed: true}); err != nil {
		t.Error(err)
	}
}
