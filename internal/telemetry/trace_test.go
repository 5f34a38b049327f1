package telemetry

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"
	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/jobs/queue"
	"github.com/assetmill/assetmill/jobs/submit"
	"github.com/assetmill/assetmill/schemas"
)

// pubsubServer is a Pub/Sub in process with the project's topics.
func pubsubServer(t *testing.T) (*pstest.Server, *pubsub.Client) {
	t.Helper()
	server := pstest.NewServer()
	t.Cleanup(func() { server.Close() })
	conn, err := grpc.NewClient(server.Addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	client, err := pubsub.NewClient(t.Context(), "test", option.WithGRPCConn(conn))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	for _, topic := range []string{schemas.TopicJobs, schemas.TopicDead, schemas.TopicResults} {
		if _, err := client.TopicAdminClient.CreateTopic(t.Context(), &pubsubpb.Topic{Name: "projects/test/topics/" + topic}); err != nil {
			t.Fatal(err)
		}
	}
	_, err = client.SubscriptionAdminClient.CreateSubscription(t.Context(), &pubsubpb.Subscription{
		Name: "projects/test/subscriptions/" + schemas.SubscriptionOnline, Topic: "projects/test/topics/jobs", AckDeadlineSeconds: 60,
	})
	if err != nil {
		t.Fatal(err)
	}
	return server, client
}

// noRecords stands for the lineage and the receipts of a submission that is new.
type noRecords struct{}

func (noRecords) DoneIDs(context.Context, string, time.Time) iter.Seq2[string, error] {
	return func(func(string, error) bool) {}
}
func (noRecords) Ended(context.Context, string, time.Time) (int64, error)         { return 0, nil }
func (noRecords) AppendSubmission(context.Context, *schemas.SubmissionRow) error  { return nil }
func (noRecords) Receipt(context.Context, string) (*schemas.SubmissionRow, error) { return nil, nil }
func (noRecords) PutReceipt(context.Context, *schemas.SubmissionRow) error        { return nil }

// journey is one Pub/Sub, a submitter and a worker, which send their spans to one place.
type journey struct {
	t      *testing.T
	server *pstest.Server
	client *pubsub.Client
	spans  *tracetest.InMemoryExporter
	*world
}

// travel starts a worker. Its own traces and the submitter's are recorded as the sampler says; nil: the worker has no tracer.
func travel(t *testing.T, workerSampler sdktrace.Sampler) *journey {
	t.Helper()
	j := &journey{t: t, spans: tracetest.NewInMemoryExporter()}
	j.server, j.client = pubsubServer(t)
	q := queue.New(j.client, queue.Config{Mode: jobs.Online, MaxMessages: 4})
	j.world = &world{t: t, queue: q, results: q, callFor: 20 * time.Millisecond}
	if workerSampler != nil {
		j.world.tracer = j.tracer("worker", workerSampler)
	}
	j.start()
	t.Cleanup(func() { j.halt(); q.Close() })
	return j
}

func (j *journey) tracer(process string, s sdktrace.Sampler) trace.Tracer {
	who := resource.NewSchemaless(attribute.String("service.instance.id", process))
	return sdktrace.NewTracerProvider(sdktrace.WithSyncer(j.spans), sdktrace.WithSampler(s), sdktrace.WithResource(who)).Tracer("test")
}

// submit submits a file with one row.
func (j *journey) submit(id string, s sdktrace.Sampler) {
	j.t.Helper()
	q := queue.New(j.client, queue.Config{Mode: jobs.Online, Tracer: j.tracer("submit", s)})
	defer q.Close()
	file := []byte("id,prompt,campaign\n" + id + ",a red fox named " + secret + ",spring\n")
	_, err := submit.Run(j.t.Context(), []submit.File{{Name: "foxes.csv", Size: int64(len(file)), Open: func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(file)), nil
	}}}, submit.Options{Submission: "s1", Catalogue: jobs.DefaultCatalogue()}, submit.Ports{Publisher: q, Lineage: noRecords{}, Receipts: noRecords{}})
	if err != nil {
		j.t.Fatal(err)
	}
}

// announced waits until the n-th result is announced and its spans have ended, and returns its attributes.
func (j *journey) announced(n int) map[string]string {
	j.t.Helper()
	deadline := time.After(30 * time.Second)
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for {
		var results []*pstest.Message
		for _, m := range j.server.Messages() {
			if m.Attributes["outcome"] != "" {
				results = append(results, m)
			}
		}
		if len(results) >= n && j.worker.Stats().InFlight == 0 {
			return results[n-1].Attributes
		}
		select {
		case <-poll.C:
		case <-deadline:
			j.t.Fatalf("%d results were announced, want %d", len(results), n)
		}
	}
}

// shown are the attributes that the tree of a trace shows, in this order.
var shown = []string{
	"assetmill.claim", "assetmill.lane", "assetmill.attempt", "assetmill.result", "http.response.status_code", "assetmill.asset_bytes",
	"assetmill.outcome", "assetmill.reason", "assetmill.verdict",
}

// drawTrace draws the spans as a tree, children by their beginning, with what each took.
func drawTrace(spans tracetest.SpanStubs) string {
	slices.SortFunc(spans, func(a, b tracetest.SpanStub) int { return a.StartTime.Compare(b.StartTime) })
	var b strings.Builder
	var draw func(parent trace.SpanID, indent string)
	draw = func(parent trace.SpanID, indent string) {
		var children tracetest.SpanStubs
		for _, s := range spans {
			if s.Parent.SpanID() == parent {
				children = append(children, s)
			}
		}
		for i, s := range children {
			branch, below := "├─ ", "│  "
			if i == len(children)-1 {
				branch, below = "└─ ", "   "
			}
			if indent == "" && !parent.IsValid() {
				branch, below = "", ""
			}
			who, _ := s.Resource.Set().Value("service.instance.id")
			fmt.Fprintf(&b, "%-24s %7.1f ms  %-6s", indent+branch+s.Name, float64(s.EndTime.Sub(s.StartTime).Microseconds())/1000, who.AsString())
			for _, key := range shown {
				for _, a := range s.Attributes {
					if string(a.Key) == key {
						fmt.Fprintf(&b, "  %s=%s", key[strings.LastIndex(key, ".")+1:], a.Value.String())
					}
				}
			}
			b.WriteString("\n")
			draw(s.SpanContext.SpanID(), indent+below)
		}
	}
	draw(trace.SpanID{}, "")
	return strings.ReplaceAll(b.String(), " \n", "\n")
}

// duration matches what differs from run to run.
var duration = regexp.MustCompile(` +[0-9.]+ ms +`)

// One job is one trace: from the file that it comes from to the row that it ends in and the event that announces it.
func TestTheTraceOfOneJob(t *testing.T) {
	t.Parallel()
	j := travel(t, sdktrace.ParentBased(sdktrace.NeverSample()))
	j.submit("throttled-1", sdktrace.AlwaysSample())
	result := j.announced(1)
	spans := j.spans.GetSpans()
	id := spans[0].SpanContext.TraceID()
	for _, s := range spans {
		if s.SpanContext.TraceID() != id {
			t.Errorf("span %s belongs to another trace", s.Name)
		}
	}
	rows := j.lineage.Generations()
	if len(rows) != 1 || rows[0].GetTraceId() != id.String() {
		t.Errorf("the trace is %s; the rows are %v", id, rows)
	}
	if !strings.HasPrefix(result["traceparent"], "00-"+id.String()+"-") {
		t.Errorf("the result's traceparent is %q", result["traceparent"])
	}
	tree := drawTrace(spans)
	t.Logf("trace %s\n%s", id, tree)

	text, err := os.ReadFile("../../docs/observability.md")
	if err != nil {
		t.Fatal(err)
	}
	_, example, _ := strings.Cut(string(text), "```trace\n")
	example, _, _ = strings.Cut(example, "```")
	plain := func(tree string) string { return duration.ReplaceAllString(tree, " … ") }
	if diff := cmp.Diff(plain(tree), plain(example)); diff != "" {
		t.Errorf("docs/observability.md shows another trace (-now +docs):\n%s", diff)
	}
}

func TestSpansShowNoPromptsAndNoTextOfErrors(t *testing.T) {
	t.Parallel()
	j := travel(t, sdktrace.AlwaysSample())
	for i, id := range []string{"img-1", "refused-1", "flaky-1"} {
		j.submit(id, sdktrace.AlwaysSample())
		j.announced(i + 1)
	}
	publish(t, j, "no json "+secret, nil)
	j.announced(4)
	spans := j.spans.GetSpans()
	if len(spans) < 30 {
		t.Errorf("only %d spans", len(spans))
	}
	for _, s := range spans {
		if text := fmt.Sprint(s.Name, s.Attributes, s.Events, s.Status); strings.Contains(text, secret) {
			t.Errorf("a span shows it: %s", text)
		}
	}
}

// publish publishes a message as an upstream system does.
func publish(t *testing.T, j *journey, data string, attributes map[string]string) {
	t.Helper()
	topic := j.client.Publisher(schemas.TopicJobs)
	defer topic.Stop()
	if _, err := topic.Publish(t.Context(), &pubsub.Message{Data: []byte(data), Attributes: attributes}).Get(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestWhichTraceARowNames(t *testing.T) {
	t.Parallel()
	const upstream = "0af7651916cd43dd8448eb211c80319c"
	parent := func(flags string) map[string]string {
		return map[string]string{"traceparent": "00-" + upstream + "-b7ad6b7169203331-" + flags}
	}
	always, never := sdktrace.ParentBased(sdktrace.AlwaysSample()), sdktrace.ParentBased(sdktrace.NeverSample())
	for _, tt := range []struct {
		name       string
		sampler    sdktrace.Sampler
		attributes map[string]string
		row        string // the trace that the row names: upstream's, "own" or none
		result     string // whose trace goes on with the result
	}{
		{"no trace upstream, recorded here", always, nil, "own", "own"},
		{"no trace upstream, not recorded here", never, nil, "", "unrecorded"},
		{"recorded upstream", never, parent("01"), upstream, upstream},
		{"not recorded upstream", always, parent("00"), "", upstream},
		{"recorded upstream, no tracer here", nil, parent("01"), upstream, upstream},
		{"no trace upstream, no tracer here", nil, nil, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			j := travel(t, tt.sampler)
			publish(t, j, message("img-1"), tt.attributes)
			_, going, _ := strings.Cut(j.announced(1)["traceparent"], "-")
			row := j.lineage.Generations()[0].GetTraceId()
			own := ""
			if spans := j.spans.GetSpans(); len(spans) > 0 {
				own = spans[0].SpanContext.TraceID().String()
			}
			if want := strings.Replace(tt.row, "own", own, 1); row != want {
				t.Errorf("the row names %q, want %q", row, want)
			}
			switch tt.result {
			case "":
				if going != "" {
					t.Errorf("the result goes on with %q", going)
				}
			case "unrecorded":
				if !strings.HasSuffix(going, "-00") {
					t.Errorf("the result goes on with %q", going)
				}
			default:
				if want := strings.Replace(tt.result, "own", own, 1); want == "" || !strings.HasPrefix(going, want) {
					t.Errorf("the result goes on with %q, want %q", going, want)
				}
			}
		})
	}
}

// A message that is delivered again adds to its trace.
func TestEachDeliveryIsASpanOfTheSameTrace(t *testing.T) {
	t.Parallel()
	j := travel(t, sdktrace.ParentBased(sdktrace.NeverSample()))
	parent := map[string]string{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
	publish(t, j, message("img-1"), parent)
	j.announced(1)
	publish(t, j, message("img-1"), parent)
	j.announced(2)
	var verdicts []string
	for _, s := range j.spans.GetSpans() {
		if s.Name == "job" {
			verdicts = append(verdicts, s.SpanContext.TraceID().String()+" "+s.Parent.SpanID().String())
		}
	}
	want := "0af7651916cd43dd8448eb211c80319c b7ad6b7169203331"
	if diff := cmp.Diff([]string{want, want}, verdicts); diff != "" {
		t.Error(diff)
	}
}
