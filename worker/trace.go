package worker

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/assetmill/assetmill/jobs"
)

// A job is one trace, from its publication to the event that announces its end. What the worker adds is a span `job` for each delivery of
// the job's message, and below it a span for each step. Spans carry ids, names and numbers; never a prompt, nor an error's text, which may quote one.

// traced returns the run as one message sees it: with contexts that carry the message's span. ctx carries the trace of whoever published
// the message; a message without one begins a trace of its own, if the tracer decides so.
func (r *run) traced(ctx context.Context, d *jobs.Delivery) (*run, trace.Span) {
	span := trace.SpanFromContext(ctx)
	switch {
	case r.cfg.Tracer != nil:
		_, span = r.cfg.Tracer.Start(ctx, "job", trace.WithSpanKind(trace.SpanKindConsumer))
	case !span.SpanContext().IsValid():
		return r, noop.Span{}
	}
	if span.IsRecording() {
		span.SetAttributes(
			attribute.String("messaging.system", "gcp_pubsub"),
			attribute.String("messaging.operation.type", "process"),
			attribute.String("messaging.message.id", d.ID),
			attribute.String("assetmill.worker", r.cfg.ID),
		)
	}
	own := *r
	own.receiving = trace.ContextWithSpan(r.receiving, span)
	own.calls = trace.ContextWithSpan(r.calls, span)
	own.settle = trace.ContextWithSpan(r.settle, span)
	return &own, span
}

// traceParent is the trace of ctx as it is kept with a job of a batch, which ends days later in another process: W3C's traceparent, or "".
func traceParent(ctx context.Context) string {
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	return carrier[traceParentKey]
}

// withTraceParent returns ctx with a trace that was kept. What is no trace changes nothing.
func withTraceParent(ctx context.Context, parent string) context.Context {
	return propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{traceParentKey: parent})
}

const traceParentKey = "traceparent"

// endJob ends the span of a message.
func endJob(span trace.Span, v jobs.Verdict) {
	if span.IsRecording() {
		span.SetAttributes(attribute.String("assetmill.verdict", v.Action.String()))
		if v.Action == jobs.Dead {
			span.SetStatus(codes.Error, string(v.Reason))
		}
	}
	span.End()
}

// traceID returns the id of the job's trace, or "" when nobody records one.
func (t *task) traceID() string {
	sc := trace.SpanContextFromContext(t.settle)
	if !sc.IsSampled() {
		return ""
	}
	return sc.TraceID().String()
}

// endSpan ends the span of a step.
func endSpan(span trace.Span, err error) {
	if span == nil {
		return
	}
	if err != nil {
		kind := errorType(err)
		span.SetAttributes(attribute.String("error.type", kind))
		span.SetStatus(codes.Error, kind)
	}
	span.End()
}

// errorTypes names the errors that the spine tells apart, in this order.
var errorTypes = []struct {
	err  error
	name string
}{
	{ErrFenced, "fenced"}, {ErrRowRefused, "row_refused"}, {ErrLanesShut, "lanes_shut"}, {ErrNoLane, "no_lane"},
	{errHeldTooLong, "held_too_long"}, {errStopping, "stopping"}, {errOvertime, "overtime"},
	{context.DeadlineExceeded, "timeout"}, {context.Canceled, "cancelled"},
}

// errorType is the kind of an error in one word. The text of an error is for the log.
func errorType(err error) string {
	var ce *CallError
	if errors.As(err, &ce) {
		return ce.Kind.String()
	}
	for _, known := range errorTypes {
		if errors.Is(err, known.err) {
			return known.name
		}
	}
	return "other"
}
