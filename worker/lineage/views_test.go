package lineage_test

import (
	"testing"

	"cloud.google.com/go/bigquery"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/assetmill/assetmill/schemas"
	"github.com/assetmill/assetmill/worker/lineage"
)

// The views are tested with one submission of four jobs, every row of which is stored twice, as after a redelivery: two jobs
// succeeded, one of them paid for twice, one was refused, one was no valid job; a fifth has not ended.
func TestViews(t *testing.T) {
	t.Parallel()
	l, s := local(t), unique("views")
	fillViews(t, l, s)
	for _, tc := range []struct {
		sql  string
		want [][]any
	}{
		{"SELECT job_id, worker, cost_usd FROM generations WHERE submission = @s ORDER BY job_id", [][]any{
			{s + "-1", "w1", "0.134400000"}, {s + "-2", "w1", "0.268800000"}, {s + "-3", "w1", "0.001000000"}, {s + "-4", "w1", nil},
		}},
		{"SELECT attempt_id FROM attempts WHERE submission = @s ORDER BY attempt_id", [][]any{
			{s + "-1/a"}, {s + "-2/a"}, {s + "-2/b"}, {s + "-2/c"}, {s + "-3/a"},
		}},
		{"SELECT receipt, already_done FROM submissions WHERE submission = @s", [][]any{{"r2", int64(1)}}},
		{"SELECT outcome, reason, jobs, cost_usd, attempts FROM outcomes_by_submission WHERE submission = @s ORDER BY outcome", [][]any{
			{"failed", "invalid_job", int64(1), "0.000000000", int64(0)},
			{"refused", "prompt_filter", int64(1), "0.001000000", int64(1)},
			{"succeeded", "image", int64(2), "0.403200000", int64(2)},
		}},
		{"SELECT day, campaign, client, tier, jobs, assets, refused, failed, cost_usd, cost_per_asset_usd FROM cost_by_campaign_day WHERE client = @s ORDER BY day", [][]any{
			{"2026-11-23", "spring", s, "standard", int64(3), int64(2), int64(1), int64(0), "0.404200000", "0.202100000"},
			{"2026-11-24", "spring", s, "standard", int64(1), int64(0), int64(0), int64(1), "0.000000000", nil},
		}},
		{"SELECT job_id, campaign, images, unanswered, cost_usd, wasted_usd FROM paid_twice WHERE submission = @s", [][]any{
			{s + "-2", "spring", int64(2), int64(1), "0.268800000", "0.134400000"},
		}},
		{"SELECT job_id, asset_uri, model, cost_usd FROM assets WHERE submission = @s ORDER BY job_id", [][]any{
			{s + "-1", "gs://assets/keep/spring/" + s + "-1.png", "gemini-3-pro-image", "0.134400000"},
			{s + "-2", "gs://assets/keep/spring/" + s + "-2.png", "gemini-3-pro-image", "0.268800000"},
		}},
		{"SELECT job_id, outcome, reason, detail, source_row FROM not_made WHERE submission = @s ORDER BY job_id", [][]any{
			{s + "-3", "refused", "prompt_filter", "blocked before generation", int64(4)},
			{s + "-4", "failed", "invalid_job", "size \"9K\" is not offered", int64(5)},
		}},
		{"SELECT jobs, ended, succeeded, refused, failed, cancelled, pending, estimated_cost_usd, cost_usd FROM progress_by_submission WHERE submission = @s", [][]any{
			{int64(5), int64(4), int64(2), int64(1), int64(1), int64(0), int64(1), "0.672000000", "0.404200000"},
		}},
		{"SELECT hour, lane, calls, images, refused, errors, unanswered, mean_ms, max_ms, cost_usd FROM calls_by_lane_hour WHERE model = @s", [][]any{
			{"2026-11-23T10:00:00Z", "global-standard", int64(5), int64(3), int64(1), int64(0), int64(1), int64(9000), int64(9000), "0.403200000"},
		}},
		{"SELECT job_id, key, value FROM source_values WHERE submission = @s AND key = 'sku' ORDER BY job_id LIMIT 1", [][]any{
			{s + "-1", "sku", "4711"},
		}},
		{"SELECT job_id FROM paid_twice WHERE submission = CONCAT(@s, 'x')", nil},
	} {
		got := rows(t, l, tc.sql, s)
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s: %s", tc.sql, diff)
		}
	}
}

// Of a batch the newest row counts, and a closed batch stays closed, whatever the clocks of two workers say. What became of its jobs is
// counted from their own rows.
func TestViewsOfBatches(t *testing.T) {
	t.Parallel()
	l, s := local(t), unique("batches")
	insert := shared.client.Query("INSERT INTO `" + project + "." + dataset + ".batches_raw`" + `
		(batch_id, model, state, reason, jobs, done, refused, failed, requeued, cost_usd, saved_usd, changed_at, worker) VALUES
		(CONCAT(@s, '-1'), @s, 'gathered', NULL, 5, NULL, NULL, NULL, NULL, NULL, NULL, TIMESTAMP '2026-11-23T10:00:00Z', 'w1'),
		(CONCAT(@s, '-1'), @s, 'closed', 'partial', 5, 2, 1, 0, 2, NUMERIC '0.2', NUMERIC '0.19', TIMESTAMP '2026-11-23T12:00:00Z', 'w2'),
		(CONCAT(@s, '-1'), @s, 'collecting', 'partial', 5, 1, 0, 0, 0, NULL, NULL, TIMESTAMP '2026-11-23T12:00:01Z', 'w1'),
		(CONCAT(@s, '-2'), @s, 'gathered', NULL, 7, NULL, NULL, NULL, NULL, NULL, NULL, TIMESTAMP '2026-11-23T10:00:00Z', 'w1'),
		(CONCAT(@s, '-2'), @s, 'running', NULL, 7, NULL, NULL, NULL, NULL, NULL, NULL, TIMESTAMP '2026-11-23T11:00:00Z', 'w1')`)
	insert.Parameters = []bigquery.QueryParameter{{Name: "s", Value: s}}
	if _, err := insert.Read(t.Context()); err != nil {
		t.Fatal(err)
	}
	made, refused, online := generation(t, s, s+"-a"), generation(t, s, s+"-b"), generation(t, s, s+"-c")
	made.BatchId, made.Model, made.CostUsd = s+"-1", s, "0.0672"
	refused.BatchId, refused.Model, refused.CostUsd, refused.Outcome, refused.Reason = s+"-1", s, "0.001", "refused", "no_image"
	for _, row := range []*schemas.GenerationRow{made, refused, refused, online} {
		if err := l.AppendGeneration(t.Context(), row); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		sql  string
		want [][]any
	}{
		{"SELECT batch_id, state, reason, jobs, done, requeued, cost_usd, saved_usd, worker FROM batches WHERE model = @s ORDER BY batch_id", [][]any{
			{s + "-1", "closed", "partial", int64(5), int64(2), int64(2), "0.200000000", "0.190000000", "w2"},
			{s + "-2", "running", nil, int64(7), nil, nil, nil, nil, "w1"},
		}},
		{"SELECT batch_id, jobs, succeeded, refused, failed, cost_usd FROM outcomes_by_batch WHERE model = @s ORDER BY batch_id", [][]any{
			{s + "-1", int64(2), int64(1), int64(1), int64(0), "0.068200000"},
		}},
	} {
		if diff := cmp.Diff(tc.want, rows(t, l, tc.sql, s)); diff != "" {
			t.Errorf("%s: %s", tc.sql, diff)
		}
	}
}

func fillViews(t *testing.T, l *lineage.Lineage, s string) {
	t.Helper()
	good, twice, refused, invalid := generation(t, s, s+"-1"), generation(t, s, s+"-2"), generation(t, s, s+"-3"), generation(t, s, s+"-4")
	twice.CostUsd = "0.2688"
	refused.Outcome, refused.Reason, refused.Detail, refused.CostUsd, refused.SourceRow = "refused", "prompt_filter", "blocked before generation", "0.001", 4
	refused.AssetUri = ""
	invalid.Outcome, invalid.Reason, invalid.Detail, invalid.CostUsd, invalid.SourceRow = "failed", "invalid_job", "size \"9K\" is not offered", "", 5
	invalid.AssetUri, invalid.Attempts, invalid.FinishedAt = "", nil, micros(t, "2026-11-24T00:00:00Z")
	late := proto.CloneOf(good) // a second end of the job, decided later: the first stands
	late.Worker, late.CostUsd, late.FinishedAt = "w0", "9", late.FinishedAt+1
	calls := []*schemas.AttemptRow{
		attempt(t, s, s+"-1", "a", "image"), attempt(t, s, s+"-2", "a", "image"), attempt(t, s, s+"-2", "b", "image"),
		attempt(t, s, s+"-2", "c", "unknown"), attempt(t, s, s+"-3", "a", "refused"),
	}
	receipt := &schemas.SubmissionRow{Submission: s, Receipt: "r1", Campaign: "spring", Jobs: proto.Int64(5), AlreadyDone: proto.Int64(0),
		EstimatedCostUsd: "0.672", SubmittedAt: micros(t, "2026-11-23T09:00:00Z")}
	newer := proto.CloneOf(receipt)
	newer.Receipt, newer.AlreadyDone, newer.SubmittedAt = "r2", proto.Int64(1), receipt.SubmittedAt+1
	for range 2 {
		for _, row := range []*schemas.GenerationRow{good, twice, refused, invalid, late} {
			row.Client = s
			if err := l.AppendGeneration(t.Context(), row); err != nil {
				t.Fatal(err)
			}
		}
		for _, row := range calls {
			row.Model = s // the view has no submission; this finds the rows again
			if err := l.AppendAttempt(t.Context(), row); err != nil {
				t.Fatal(err)
			}
		}
		for _, row := range []*schemas.SubmissionRow{newer, receipt} {
			if err := l.AppendSubmission(t.Context(), row); err != nil {
				t.Fatal(err)
			}
		}
	}
}
