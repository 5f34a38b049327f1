package queue

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
)

// The context of a message's trace travels in its attributes as W3C Trace Context, like the headers of an HTTP request.
const (
	// AttributeTraceParent holds the id of the trace, the span that published the message, and whether the trace is recorded.
	AttributeTraceParent = "traceparent"
	// AttributeTraceState holds what tracing systems add to it. It may be absent.
	AttributeTraceState = "tracestate"
	// clientPrefix is what Google's Pub/Sub clients put in front of both names when their own tracing is on.
	clientPrefix = "googclient_"
)

// attributes are a message's attributes as a carrier of the trace context.
type attributes map[string]string

// Get implements propagation.TextMapCarrier. What the producer wrote itself comes before what its client wrote.
func (a attributes) Get(key string) string {
	if v, ok := a[key]; ok {
		return v
	}
	return a[clientPrefix+key]
}

// Set implements propagation.TextMapCarrier.
func (a attributes) Set(key, value string) { a[key] = value }

// Keys implements propagation.TextMapCarrier.
func (a attributes) Keys() []string { return []string{AttributeTraceParent, AttributeTraceState} }

// inject adds the context of ctx's trace, if it has one.
func (a attributes) inject(ctx context.Context) { propagation.TraceContext{}.Inject(ctx, a) }

// extract returns ctx with the trace context of the attributes. If there is none, or it is malformed, it returns ctx.
func (a attributes) extract(ctx context.Context) context.Context {
	return propagation.TraceContext{}.Extract(ctx, a)
}

// publishing begins the span of a job's publication. It is the root of the job's trace, unless ctx has a span.
func (q *Queue) publishing(ctx context.Context, j *jobs.Job) (context.Context, trace.Span) {
	ctx, span := q.cfg.Tracer.Start(ctx, "publish job", trace.WithSpanKind(trace.SpanKindProducer))
	if span.IsRecording() {
		span.SetAttributes(
			attribute.String("messaging.system", "gcp_pubsub"),
			attribute.String("messaging.operation.type", "send"),
			attribute.String("messaging.destination.name", schemas.TopicJobs),
			attribute.String("assetmill.job_id", j.ID),
			attribute.String("assetmill.submission", j.Submission),
			attribute.String("assetmill.campaign", j.Campaign),
		)
	}
	return ctx, span
}

// published ends the span of a publication.
func published(span trace.Span, messageID string, err error) {
	if err != nil {
		span.SetStatus(codes.Error, "not accepted by the topic")
	} else if span.IsRecording() {
		span.SetAttributes(attribute.String("messaging.message.id", messageID))
	}
	span.End()
}
