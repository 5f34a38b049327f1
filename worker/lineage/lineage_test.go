package lineage_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/bigquery"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/assetmill/assetmill/schemas"
	"github.com/assetmill/assetmill/worker"
	"github.com/assetmill/assetmill/worker/lineage"
)

var _ worker.Lineage = (*lineage.Lineage)(nil)

func all(t *testing.T, r *lineage.Rows) (out [][]any) {
	t.Helper()
	for {
		row, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, row)
	}
}

// Every kind of column arrives as it was sent, and what was not set is NULL.
func TestColumnsArriveAsSent(t *testing.T) {
	t.Parallel()
	l, s := local(t), unique("columns")
	if err := l.AppendGeneration(t.Context(), generation(t, s, s+"-1")); err != nil {
		t.Fatal(err)
	}
	got := rows(t, l, `
		SELECT job_id, prompt, labels, `+"`references`"+`, safety_ratings, seed, throttled, cost_is_fallback, cost_usd, finished_at,
		  called_at, client, asset_bytes, batch_id
		FROM generations_raw WHERE submission = @s`, s)
	want := [][]any{{
		s + "-1", "A \"quoted\" 'näive' prompt\nwith lines\\ and a back slash",
		[]any{map[string]any{"key": "season", "value": "spring"}, map[string]any{"key": "vip", "value": nil}},
		[]any{"gs://brand/logo.png"}, []any{}, int64(0), int64(0), false, "0.134400000", "2026-11-23T10:00:00.123456Z",
		nil, nil, nil, nil,
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// Many callers at once share requests; each returns when its own row is stored, and duplicates count once.
func TestConcurrentAppendsAreDurableAndCountOnce(t *testing.T) {
	t.Parallel()
	const jobs = 500
	l, s := local(t), unique("many")
	var wg sync.WaitGroup
	for i := range jobs {
		wg.Go(func() {
			row := generation(t, s, fmt.Sprintf("%s-%03d", s, i))
			row.Reason, row.Outcome = "image", "succeeded"
			if i%5 == 0 {
				row.Reason, row.Outcome, row.CostUsd = "prompt_filter", "refused", "0.001"
			}
			if err := l.AppendGeneration(t.Context(), row); err != nil {
				t.Errorf("job %d: %v", i, err)
			}
			if i%10 == 0 { // redelivered: the same row again
				if err := l.AppendGeneration(t.Context(), row); err != nil {
					t.Errorf("job %d again: %v", i, err)
				}
			}
		})
	}
	wg.Wait()
	want := []lineage.Count{
		{Outcome: "refused", Reason: "prompt_filter", Jobs: 100, CostUSD: "0.100000000"},
		{Outcome: "succeeded", Reason: "image", Jobs: 400, CostUSD: "53.760000000"},
	}
	got, err := l.Counts(t.Context(), lineage.Scope{Submission: s, Since: time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	inView := rows(t, l, "SELECT outcome, jobs, cost_usd FROM outcomes_by_submission WHERE submission = @s ORDER BY outcome", s)
	if diff := cmp.Diff([][]any{{"refused", int64(100), "0.100000000"}, {"succeeded", int64(400), "53.760000000"}}, inView); diff != "" {
		t.Error(diff)
	}
	raw := rows(t, l, "SELECT COUNT(*) FROM generations_raw WHERE submission = @s", s)
	if diff := cmp.Diff([][]any{{int64(550)}}, raw); diff != "" {
		t.Error(diff)
	}
	seen := map[string]bool{}
	for id, err := range l.DoneIDs(t.Context(), lineage.Scope{Submission: s}) {
		if err != nil {
			t.Fatal(err)
		}
		if seen[id] {
			t.Errorf("%s comes twice", id)
		}
		seen[id] = true
	}
	if len(seen) != jobs {
		t.Errorf("%d ids instead of %d", len(seen), jobs)
	}
	for range l.DoneIDs(t.Context(), lineage.Scope{Submission: s}) {
		break // leaving early must be safe
	}
}

func TestCountsOutsideTheScope(t *testing.T) {
	t.Parallel()
	l, s := local(t), unique("scope")
	if err := l.AppendGeneration(t.Context(), generation(t, s, s+"-1")); err != nil {
		t.Fatal(err)
	}
	for name, scope := range map[string]lineage.Scope{
		"unknown submission":    {Submission: unique("nothing")},
		"after the job's end":   {Submission: s, Since: time.Date(2026, 11, 23, 11, 0, 0, 0, time.UTC)},
		"a value is not an SQL": {Submission: "' OR TRUE OR '"},
	} {
		if got, err := l.Counts(t.Context(), scope); err != nil || len(got) != 0 {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

// What BigQuery would refuse is refused at once, with the field's name, and its neighbours are stored.
func TestRefusedRows(t *testing.T) {
	t.Parallel()
	l, s := local(t), unique("refused")
	for name, tc := range map[string]struct {
		change func(*schemas.GenerationRow)
		want   string
	}{
		"required":        {func(r *schemas.GenerationRow) { r.Reason = "" }, "reason is required"},
		"required time":   {func(r *schemas.GenerationRow) { r.FinishedAt = 0 }, "finished_at is required"},
		"nested required": {func(r *schemas.GenerationRow) { r.Labels = []*schemas.KeyValue{{Key: "a"}, {Value: "b"}} }, "labels[1].key is required"},
		"words as cost":   {func(r *schemas.GenerationRow) { r.CostUsd = "free" }, "cost_usd is no decimal number"},
		"long fraction":   {func(r *schemas.GenerationRow) { r.CostUsd = "0.1234567891" }, "cost_usd is no decimal number"},
		"year 10000":      {func(r *schemas.GenerationRow) { r.CalledAt = 253_402_300_800_000_000 }, "called_at is outside the years"},
		"not UTF-8":       {func(r *schemas.GenerationRow) { r.Prompt = "\xff" }, "UTF-8"},
		"too large":       {func(r *schemas.GenerationRow) { r.Prompt = strings.Repeat("x", 5<<20) }, "more than"},
	} {
		t.Run(name, func(t *testing.T) {
			row := generation(t, s, s+"-bad")
			tc.change(row)
			err := l.AppendGeneration(t.Context(), row)
			if !errors.Is(err, lineage.ErrRefused) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want ErrRefused with %q", err, tc.want)
			}
		})
	}
	if err := l.AppendGeneration(t.Context(), generation(t, s, s+"-good")); err != nil {
		t.Fatal(err)
	}
	if got := rows(t, l, "SELECT job_id FROM generations_raw WHERE submission = @s", s); len(got) != 1 || got[0][0] != s+"-good" {
		t.Errorf("stored: %v", got)
	}
}

func TestSubmissionsComeBack(t *testing.T) {
	t.Parallel()
	l, s := local(t), unique("receipt")
	if got, err := l.Submission(t.Context(), s); got != nil || err != nil {
		t.Errorf("before: %v, %v", got, err)
	}
	first := &schemas.SubmissionRow{
		Submission: s, Receipt: "r1", Campaign: "spring", Jobs: proto.Int64(24), Published: proto.Int64(24), AlreadyDone: proto.Int64(0),
		RowsRejected: proto.Int64(0), EstimatedCostUsd: "3.225600000", SubmittedAt: micros(t, "2026-11-23T09:00:00Z"),
		Files:   []*schemas.SubmissionFile{{Name: "a.csv", Bytes: proto.Int64(123)}, {Name: "b.csv"}},
		Options: []*schemas.KeyValue{{Key: "model", Value: "gemini-3-pro-image"}},
	}
	again := proto.CloneOf(first)
	again.Receipt, again.Published, again.AlreadyDone = "r2", proto.Int64(0), proto.Int64(24)
	again.SubmittedAt = micros(t, "2026-11-23T09:30:00Z")
	for _, row := range []*schemas.SubmissionRow{again, first} {
		if err := l.AppendSubmission(t.Context(), row); err != nil {
			t.Fatal(err)
		}
	}
	got, err := l.Submission(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(again, got, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}

func TestQuery(t *testing.T) {
	t.Parallel()
	l, s := local(t), unique("query")
	empty, err := l.Query(t.Context(), "SELECT job_id, cost_usd FROM generations WHERE submission = @s", 0, bigquery.QueryParameter{Name: "s", Value: s})
	if err != nil {
		t.Fatal(err)
	}
	if got := all(t, empty); len(got) != 0 || !slices.Equal(empty.Columns, []string{"job_id", "cost_usd"}) {
		t.Errorf("empty result: %v %v", empty.Columns, got)
	}
	if _, err := empty.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v", err)
	}
	for _, sql := range []string{
		"DELETE FROM generations_raw WHERE TRUE",
		"DROP TABLE generations_raw",
		"CREATE TABLE x (a INT64)",
		"INSERT INTO generations_raw (job_id) VALUES ('x')",
		"SELECT 1; DROP TABLE generations_raw",
	} {
		if _, err := l.Query(t.Context(), sql, 0); err == nil {
			t.Errorf("%s was run", sql)
		}
	}
	if _, err := l.Query(t.Context(), "SELECT nonsense FROM generations", 0); err == nil || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("unknown column: %v", err)
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	if err := local(t).Check(t.Context()); err != nil {
		t.Errorf("all is there: %v", err)
	}
	cfg := lineage.Config{Project: project, Dataset: "nowhere", REST: shared.server.RESTOptions(), GRPC: shared.server.GRPCOptions()}
	err := open(t, cfg).Check(t.Context())
	if err == nil || !strings.Contains(err.Error(), "dataset lineage-test.nowhere: it does not exist") {
		t.Errorf("no dataset: %v", err)
	}
	err = open(t, cfg).AppendGeneration(t.Context(), generation(t, "s", "j"))
	if err == nil || !strings.Contains(err.Error(), "lineage-test.nowhere.generations_raw: the table or its dataset does not exist") {
		t.Errorf("append without a dataset: %v", err)
	}
}

// A table of an older version and one that is missing are both named.
func TestCheckNamesDrift(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	old := strings.ReplaceAll(unique("old"), "-", "_")
	ds := shared.client.Dataset(old)
	if err := ds.Create(ctx, nil); err != nil {
		t.Fatal(err)
	}
	for _, table := range schemas.Tables() {
		schema, err := bigquery.SchemaFromJSON(table.Schema)
		if err != nil {
			t.Fatal(err)
		}
		switch table.Name {
		case schemas.TableAttempts:
			continue
		case schemas.TableGenerations:
			schema = slices.DeleteFunc(schema, func(f *bigquery.FieldSchema) bool { return f.Name == "trace_id" })
			schema = append(schema, &bigquery.FieldSchema{Name: "theirs", Type: bigquery.StringFieldType})
		case schemas.TableSubmissions:
			schema = append(schema, &bigquery.FieldSchema{Name: "future", Type: bigquery.StringFieldType, Required: true})
		}
		if err := ds.Table(table.Name).Create(ctx, &bigquery.TableMetadata{Schema: schema}); err != nil {
			t.Fatal(err)
		}
	}
	l := open(t, lineage.Config{Project: project, Dataset: old, REST: shared.server.RESTOptions(), GRPC: shared.server.GRPCOptions()})
	err := l.Check(ctx)
	if err == nil {
		t.Fatal("nothing was found")
	}
	for _, want := range []string{
		old + ".generations_raw: its schema is not this version's: column trace_id is missing; ",
		old + ".attempts_raw: it does not exist",
		old + ".submissions_raw: its schema is not this version's: column future is REQUIRED and unknown",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
	if strings.Contains(err.Error(), "theirs") {
		t.Errorf("a further column is reported: %v", err)
	}
}

func TestAppendAfterClose(t *testing.T) {
	t.Parallel()
	l, err := lineage.New(t.Context(), lineage.Config{Project: project, Dataset: dataset, REST: shared.server.RESTOptions(), GRPC: shared.server.GRPCOptions()})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := l.AppendGeneration(t.Context(), generation(t, "s", "j")); !errors.Is(err, lineage.ErrClosed) {
		t.Errorf("got %v", err)
	}
}
