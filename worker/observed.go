package worker

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
)

// The types in this file are the worker's ports with a measurement around each operation, and nothing else. What a port does not override
// here is not measured.

type observedControls struct {
	Controls
	control *operation
}

// Control implements Controls.
func (p observedControls) Control(ctx context.Context, submission string) (Control, error) {
	ctx, m := p.control.begin(ctx)
	control, err := p.Controls.Control(ctx, submission)
	m.end(err)
	return control, err
}

type observedLedger struct {
	Ledger
	claim, confirm, finish, release *operation
}

// stateNames are the answers to claims as spans name them.
var stateNames = map[State]string{Granted: "granted", Done: "done", Busy: "busy", Conflict: "conflict"}

// Claim implements Ledger.
func (p observedLedger) Claim(ctx context.Context, jobID string, digest jobs.Digest) (Standing, error) {
	if job := trace.SpanFromContext(ctx); job.IsRecording() {
		job.SetAttributes(attribute.String("assetmill.job_id", jobID))
	}
	ctx, m := p.claim.begin(ctx)
	standing, err := p.Ledger.Claim(ctx, jobID, digest)
	if m.span != nil {
		m.span.SetAttributes(attribute.String("assetmill.claim", stateNames[standing.State]))
	}
	m.end(err)
	return standing, err
}

// Confirm implements Ledger.
func (p observedLedger) Confirm(ctx context.Context, t Ticket) error {
	ctx, m := p.confirm.begin(ctx)
	err := p.Ledger.Confirm(ctx, t)
	m.end(err)
	return err
}

// Finish implements Ledger.
func (p observedLedger) Finish(ctx context.Context, t Ticket, r Record) error {
	ctx, m := p.finish.begin(ctx)
	err := p.Ledger.Finish(ctx, t, r)
	m.end(err)
	return err
}

// Release implements Ledger.
func (p observedLedger) Release(ctx context.Context, t Ticket, spent Spent) error {
	ctx, m := p.release.begin(ctx)
	err := p.Ledger.Release(ctx, t, spent)
	m.end(err)
	return err
}

type observedLanes struct {
	Lanes
	*meters
}

// Next implements Lanes.
func (p observedLanes) Next(ctx context.Context, j *jobs.Job) (Permit, error) {
	if job := trace.SpanFromContext(ctx); job.IsRecording() {
		job.SetAttributes(
			attribute.String("assetmill.submission", j.Submission),
			attribute.String("assetmill.campaign", j.Campaign),
			attribute.String("assetmill.model", j.Model.ID),
			attribute.String("assetmill.size", j.Size),
		)
	}
	began := time.Now()
	ctx, span := p.start(ctx, "lane wait")
	permit, err := p.Lanes.Next(ctx, j)
	if err == nil {
		lane := permit.Lane().Name
		p.laneWait.Record(ctx, time.Since(began).Seconds(), p.lane(lane).record...)
		if span != nil {
			span.SetAttributes(attribute.String("assetmill.lane", lane))
		}
	}
	endSpan(span, err)
	return permit, err
}

type observedModel struct {
	Model
	*meters
}

// Results of a call that was not answered by the model, beside those that attempts_raw.result names. Only metrics and spans name them: such
// calls have no row.
const (
	resultThrottled   = "throttled"
	resultDenied      = "denied"
	resultInterrupted = "interrupted"
	resultUnreached   = "unreached"
)

// callResults are all results of a call.
var callResults = []string{
	resultImage, resultRefused, resultUseless, resultError, resultUnknown, resultThrottled, resultDenied, resultInterrupted, resultUnreached,
}

// callResult is how a call ended, in one word.
func callResult(a *Answer, err error) string {
	var ce *CallError
	switch {
	case err == nil:
		return answerResult(a.Reason)
	case !errors.As(err, &ce):
		return resultUnknown
	}
	switch ce.Kind {
	case Throttled:
		return resultThrottled
	case Unanswered:
		return resultUnknown
	case Denied:
		return resultDenied
	case Interrupted:
		return resultInterrupted
	case Unreached:
		return resultUnreached
	default:
		return resultError
	}
}

// Generate implements Model.
func (p observedModel) Generate(ctx context.Context, c Call) (*Answer, error) {
	began := time.Now()
	ctx, span := p.start(ctx, "call")
	answer, err := p.Model.Generate(ctx, c)
	result, lane := callResult(answer, err), p.lane(c.Lane.Name)
	p.calls.Add(ctx, 1, lane.results[result]...)
	if err == nil {
		p.callTime.Record(ctx, time.Since(began).Seconds(), lane.record...)
	}
	if span != nil {
		describeCall(span, c, answer, result, err)
	}
	endSpan(span, err)
	return answer, err
}

// describeCall says on a call's span what was asked and what came, by the field's names where there are some.
func describeCall(span trace.Span, c Call, a *Answer, result string, err error) {
	span.SetAttributes(
		attribute.String("gen_ai.operation.name", "generate_content"),
		attribute.String("gen_ai.provider.name", "gcp.vertex_ai"),
		attribute.String("gen_ai.request.model", c.Job.Model.ID),
		attribute.String("assetmill.lane", c.Lane.Name),
		attribute.String("assetmill.tier", c.Lane.Tier),
		attribute.Int("assetmill.attempt", c.Attempt),
		attribute.String("assetmill.result", result),
	)
	var ce *CallError
	if errors.As(err, &ce) && ce.Status != 0 {
		span.SetAttributes(attribute.Int("http.response.status_code", ce.Status))
	}
	if a == nil {
		return
	}
	span.SetAttributes(
		attribute.String("gen_ai.response.model", a.ModelVersion),
		attribute.String("gen_ai.response.id", a.ResponseID),
		attribute.StringSlice("gen_ai.response.finish_reasons", []string{a.FinishReason}),
		attribute.Int64("gen_ai.usage.input_tokens", a.Usage.Prompt),
		attribute.Int64("gen_ai.usage.output_tokens", a.Usage.Text+a.Usage.Thought+a.Usage.Image),
		attribute.String("assetmill.traffic_type", a.TrafficType),
	)
}

type observedAssets struct {
	Assets
	*meters
	storing, taking, finding *operation
}

// Store implements Assets.
func (p observedAssets) Store(ctx context.Context, j *jobs.Job, image *Image) (Asset, error) {
	ctx, m := p.storing.begin(ctx)
	asset, err := p.Assets.Store(ctx, j, image)
	p.ended(m, asset, err)
	return asset, err
}

// Take implements Assets.
func (p observedAssets) Take(ctx context.Context, j *jobs.Job, uri string) (Asset, error) {
	ctx, m := p.taking.begin(ctx)
	asset, err := p.Assets.Take(ctx, j, uri)
	p.ended(m, asset, err)
	return asset, err
}

// Find implements Assets.
func (p observedAssets) Find(ctx context.Context, j *jobs.Job) (Asset, bool, error) {
	ctx, m := p.finding.begin(ctx)
	asset, found, err := p.Assets.Find(ctx, j)
	if m.span != nil {
		m.span.SetAttributes(attribute.Bool("assetmill.found", found))
	}
	m.end(err)
	return asset, found, err
}

func (p observedAssets) ended(m *measurement, asset Asset, err error) {
	if err == nil && !asset.Existing {
		p.stored.Add(m.ctx, asset.Bytes)
	}
	if m.span != nil && err == nil {
		m.span.SetAttributes(attribute.String("assetmill.asset", asset.URI), attribute.Int64("assetmill.asset_bytes", asset.Bytes))
	}
	m.end(err)
}

type observedLineage struct {
	Lineage
	generation, attempt *operation
}

// AppendGeneration implements Lineage.
func (p observedLineage) AppendGeneration(ctx context.Context, row *schemas.GenerationRow) error {
	if job := trace.SpanFromContext(ctx); job.IsRecording() {
		job.SetAttributes(
			attribute.String("assetmill.job_id", row.GetJobId()),
			attribute.String("assetmill.outcome", row.GetOutcome()),
			attribute.String("assetmill.reason", row.GetReason()),
			attribute.String("assetmill.cost_usd", row.GetCostUsd()),
		)
	}
	ctx, m := p.generation.begin(ctx)
	err := p.Lineage.AppendGeneration(ctx, row)
	m.end(err)
	return err
}

// AppendAttempt implements Lineage.
func (p observedLineage) AppendAttempt(ctx context.Context, row *schemas.AttemptRow) error {
	ctx, m := p.attempt.begin(ctx)
	err := p.Lineage.AppendAttempt(ctx, row)
	m.end(err)
	return err
}

type observedResults struct {
	Results
	publish *operation
}

// Publish implements Results.
func (p observedResults) Publish(ctx context.Context, r *schemas.JobResult) error {
	ctx, m := p.publish.begin(ctx)
	err := p.Results.Publish(ctx, r)
	m.end(err)
	return err
}
