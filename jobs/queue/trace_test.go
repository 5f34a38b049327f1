package queue_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"cloud.google.com/go/pubsub/v2"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	api "go.opentelemetry.io/otel/trace"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/jobs/queue"
	"github.com/assetmill/assetmill/schemas"
)

const (
	traceID = "0af7651916cd43dd8448eb211c80319c"
	spanID  = "b7ad6b7169203331"
)

// deliveredTrace publishes a message with the attributes, and returns the trace context that its handler finds.
func deliveredTrace(t *testing.T, attributes map[string]string) api.SpanContext {
	t.Helper()
	_, client := open(t)
	topic := client.Publisher(schemas.TopicJobs)
	defer topic.Stop()
	if _, err := topic.Publish(t.Context(), &pubsub.Message{Data: []byte("{}"), Attributes: attributes}).Get(t.Context()); err != nil {
		t.Fatal(err)
	}
	q := queue.New(client, queue.Config{Mode: jobs.Online, MaxMessages: 1})
	defer q.Close()
	ctx, stop := context.WithCancel(t.Context())
	var found api.SpanContext
	err := q.Receive(ctx, func(ctx context.Context, _ *jobs.Delivery) jobs.Verdict {
		defer stop()
		found = api.SpanContextFromContext(ctx)
		return jobs.Verdict{Action: jobs.Ack}
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestTheHandlerFindsTheProducersTrace(t *testing.T) {
	t.Parallel()
	parent := func(flags string) string { return "00-" + traceID + "-" + spanID + "-" + flags }
	for _, tt := range []struct {
		name       string
		attributes map[string]string
		want       string // trace id, span id, sampled
	}{
		{"none", nil, ""},
		{"recorded", map[string]string{"traceparent": parent("01"), "tracestate": "vendor=1"}, traceID + " " + spanID + " true vendor=1"},
		{"not recorded", map[string]string{"traceparent": parent("00")}, traceID + " " + spanID + " false "},
		{"by Google's client", map[string]string{"googclient_traceparent": parent("01")}, traceID + " " + spanID + " true "},
		{"the producer's own comes first", map[string]string{
			"traceparent": parent("01"), "googclient_traceparent": strings.ReplaceAll(parent("01"), "0af7", "ffff"),
		}, traceID + " " + spanID + " true "},
		{"malformed", map[string]string{"traceparent": "00-" + traceID + "-short-01"}, ""},
		{"all zero", map[string]string{"traceparent": "00-00000000000000000000000000000000-" + spanID + "-01"}, ""},
		{"huge", map[string]string{"traceparent": strings.Repeat("0", 1000)}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := ""
			if sc := deliveredTrace(t, tt.attributes); sc.IsValid() {
				got = fmt.Sprint(sc.TraceID(), " ", sc.SpanID(), " ", sc.IsSampled(), " ", sc.TraceState())
				if !sc.IsRemote() {
					t.Error("the parent is not marked as remote")
				}
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// publishedAttributes publishes one job and returns the attributes of its message.
func publishedAttributes(t *testing.T, ctx context.Context, tracer api.Tracer) map[string]string {
	t.Helper()
	server, client := open(t)
	q := queue.New(client, queue.Config{Mode: jobs.Online, Tracer: tracer})
	defer q.Close()
	publish(t, ctx, q, &schemas.Job{Id: "fox-1", Prompt: "a secret fox", Campaign: "spring", Submission: "s1"})
	return server.Messages()[0].Attributes
}

func TestAPublishedJobCarriesItsTrace(t *testing.T) {
	t.Parallel()
	spans := tracetest.NewSpanRecorder()
	tracer := trace.NewTracerProvider(trace.WithSpanProcessor(spans)).Tracer("test")
	attributes := publishedAttributes(t, t.Context(), tracer)
	all := tracetest.SpanStubsFromReadOnlySpans(spans.Ended())
	if len(all) != 1 || all[0].Name != "publish job" || all[0].SpanKind != api.SpanKindProducer {
		t.Fatalf("spans: %v", all)
	}
	sc := all[0].SpanContext
	if want := "00-" + sc.TraceID().String() + "-" + sc.SpanID().String() + "-01"; attributes["traceparent"] != want {
		t.Errorf("traceparent is %q, want %q", attributes["traceparent"], want)
	}
	text := fmt.Sprint(all[0].Attributes)
	if strings.Contains(text, "secret") || !strings.Contains(text, "fox-1") || !strings.Contains(text, "messaging.message.id") {
		t.Errorf("attributes: %s", text)
	}
}

func TestATraceThatIsNotRecordedStaysSo(t *testing.T) {
	t.Parallel()
	// Otherwise the worker would decide anew, and record traces that begin in the middle.
	tracer := trace.NewTracerProvider(trace.WithSampler(trace.NeverSample())).Tracer("test")
	if parent := publishedAttributes(t, t.Context(), tracer)["traceparent"]; !strings.HasSuffix(parent, "-00") {
		t.Errorf("traceparent is %q", parent)
	}
}

func TestWithoutATracerNothingIsAdded(t *testing.T) {
	t.Parallel()
	if a := publishedAttributes(t, t.Context(), nil); len(a) != 1 || a[schemas.AttributeMode] != "online" {
		t.Errorf("attributes: %v", a)
	}
	// But the caller's own trace goes on.
	ctx := api.ContextWithRemoteSpanContext(t.Context(), remoteParent(t))
	if a := publishedAttributes(t, ctx, nil); a["traceparent"] != "00-"+traceID+"-"+spanID+"-01" {
		t.Errorf("attributes: %v", a)
	}
}

func remoteParent(t *testing.T) api.SpanContext {
	t.Helper()
	trace, err := api.TraceIDFromHex(traceID)
	if err != nil {
		t.Fatal(err)
	}
	span, err := api.SpanIDFromHex(spanID)
	if err != nil {
		t.Fatal(err)
	}
	return api.NewSpanContext(api.SpanContextConfig{TraceID: trace, SpanID: span, TraceFlags: api.FlagsSampled, Remote: true})
}

func TestAResultCarriesTheTrace(t *testing.T) {
	t.Parallel()
	server, client := open(t)
	q := queue.New(client, queue.Config{Mode: jobs.Online})
	defer q.Close()
	ctx := api.ContextWithRemoteSpanContext(t.Context(), remoteParent(t))
	if err := q.Publish(ctx, &schemas.JobResult{JobId: "fox-1", Outcome: "succeeded"}); err != nil {
		t.Fatal(err)
	}
	if a := server.Messages()[0].Attributes; a["traceparent"] != "00-"+traceID+"-"+spanID+"-01" || a["job_id"] != "fox-1" {
		t.Errorf("attributes: %v", a)
	}
}
