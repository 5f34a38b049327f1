package telemetry

import (
	"context"
	"net"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	metricspb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	tracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"google.golang.org/grpc"
)

// env is an environment of a few variables.
type env map[string]string

func (e env) get(name string) string { return e[name] }

func TestSampler(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, sampler, arg string
		want               string // the sampler's description, or part of the error
	}{
		{"default", "", "", "ParentBased{root:TraceIDRatioBased{0.001}"},
		{"default with another ratio", "", "0.5", "ParentBased{root:TraceIDRatioBased{0.5}"},
		{"everything", "always_on", "", "AlwaysOnSampler"},
		{"nothing", "always_off", "", "AlwaysOffSampler"},
		{"what producers ask for", "parentbased_always_off", "", "ParentBased{root:AlwaysOffSampler"},
		{"a share", "traceidratio", "0.25", "TraceIDRatioBased{0.25}"},
		{"a share that is not given is the whole", "traceidratio", "", "TraceIDRatioBased{1}"},
		{"an argument that nobody asked for", "always_on", "x", "AlwaysOnSampler"},
		{"unknown", "jaeger_remote", "", `OTEL_TRACES_SAMPLER is "jaeger_remote"; allowed:`},
		{"unknown with a parent", "parentbased_never", "", `OTEL_TRACES_SAMPLER is "parentbased_never"`},
		{"no number", "parentbased_traceidratio", "10%", `OTEL_TRACES_SAMPLER_ARG is "10%"; allowed: a share from 0 to 1`},
		{"too large", "traceidratio", "1.5", "allowed: a share"},
		{"not a number", "traceidratio", "NaN", "allowed: a share"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s, err := newSampler(env{"OTEL_TRACES_SAMPLER": tt.sampler, "OTEL_TRACES_SAMPLER_ARG": tt.arg}.get)
			got := ""
			if err != nil {
				got = err.Error()
			} else {
				got = s.Description()
			}
			if !strings.Contains(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestAProducersDecisionComesFirst(t *testing.T) {
	t.Parallel()
	s, err := newSampler(env{}.get)
	if err != nil {
		t.Fatal(err)
	}
	for _, recorded := range []bool{true, false} {
		flags := trace.TraceFlags(0).WithSampled(recorded)
		parent := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{0xff}, SpanID: trace.SpanID{1}, TraceFlags: flags, Remote: true})
		ctx := trace.ContextWithRemoteSpanContext(t.Context(), parent)
		got := s.ShouldSample(sdktrace.SamplingParameters{ParentContext: ctx, TraceID: parent.TraceID()}).Decision == sdktrace.RecordAndSample
		if got != recorded {
			t.Errorf("recorded by the producer: %v, by the worker: %v", recorded, got)
		}
	}
}

func TestWhatIsSentByOTLP(t *testing.T) {
	t.Parallel()
	const endpoint = "http://localhost:4317"
	for _, tt := range []struct {
		name            string
		env             env
		traces, metrics bool
		err             string
	}{
		{name: "nothing by default"},
		{"both", env{"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}, true, true, ""},
		{"traces only", env{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": endpoint}, true, false, ""},
		{"metrics only", env{"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": endpoint}, false, true, ""},
		{"switched off", env{"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_SDK_DISABLED": "true"}, false, false, ""},
		{"metrics are scraped", env{"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_METRICS_EXPORTER": "prometheus"}, true, false, ""},
		{"no traces", env{"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_TRACES_EXPORTER": "none"}, false, true, ""},
		{"exporters without an endpoint", env{"OTEL_TRACES_EXPORTER": "otlp"}, false, false, ""},
		{"another exporter", env{"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_TRACES_EXPORTER": "zipkin"}, false, false,
			`OTEL_TRACES_EXPORTER is "zipkin"; allowed: otlp, none`},
		{"another protocol", env{"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, false, false,
			`OTEL_EXPORTER_OTLP_PROTOCOL is "http/protobuf"`},
		{"the signal's own protocol", env{
			"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json",
			"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc", "OTEL_METRICS_EXPORTER": "none",
		}, true, false, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o, err := openOutlets(t.Context(), Config{Env: tt.env.get, Log: zap.NewNop()})
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("the error is %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil || (o.spans != nil) != tt.traces || (o.metrics != nil) != tt.metrics {
				t.Errorf("traces %v, metrics %v, error %v", o.spans != nil, o.metrics != nil, err)
			}
		})
	}
}

// collector is an OTLP collector that keeps what it is sent.
type collector struct {
	tracepb.UnimplementedTraceServiceServer
	mu    sync.Mutex
	spans []string
	names map[string]bool // of metrics
	who   map[string]string
}

func (c *collector) Export(_ context.Context, r *tracepb.ExportTraceServiceRequest) (*tracepb.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, rs := range r.GetResourceSpans() {
		for _, a := range rs.GetResource().GetAttributes() {
			c.who[a.GetKey()] = a.GetValue().GetStringValue()
		}
		for _, ss := range rs.GetScopeSpans() {
			for _, s := range ss.GetSpans() {
				c.spans = append(c.spans, s.GetName())
			}
		}
	}
	return &tracepb.ExportTraceServiceResponse{}, nil
}

// metricCollector is the collector's other service; both have a method Export.
type metricCollector struct {
	metricspb.UnimplementedMetricsServiceServer
	*collector
}

func (c metricCollector) Export(_ context.Context, r *metricspb.ExportMetricsServiceRequest) (*metricspb.ExportMetricsServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, rm := range r.GetResourceMetrics() {
		for _, sm := range rm.GetScopeMetrics() {
			for _, m := range sm.GetMetrics() {
				c.names[m.GetName()] = true
			}
		}
	}
	return &metricspb.ExportMetricsServiceResponse{}, nil
}

func startCollector(t *testing.T) (*collector, string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &collector{names: map[string]bool{}, who: map[string]string{}}
	server := grpc.NewServer()
	tracepb.RegisterTraceServiceServer(server, c)
	metricspb.RegisterMetricsServiceServer(server, metricCollector{collector: c})
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	return c, "http://" + listener.Addr().String()
}

func TestACollectorGetsEverythingByTheEnd(t *testing.T) {
	c, endpoint := startCollector(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
	t.Setenv("OTEL_TRACES_SAMPLER", "always_on")
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test,service.version=patched")
	tel, err := Open(t.Context(), Config{Service: "assetmill", Version: "v1", Instance: "w1", Env: os.Getenv})
	if err != nil {
		t.Fatal(err)
	}
	_, span := tel.Tracer().Start(t.Context(), "job")
	span.End()
	if err := Show(tel.Meter(), Sources{Memory: func() (int64, int64, int) { return 1, 2, 3 }}); err != nil {
		t.Fatal(err)
	}
	if err := tel.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.spans) != 1 || c.spans[0] != "job" || !c.names["assetmill.image_memory.used"] {
		t.Errorf("the collector has spans %v and metrics %v", c.spans, c.names)
	}
	for k, want := range map[string]string{
		"service.name": "assetmill", "service.instance.id": "w1", "deployment.environment.name": "test", "service.version": "patched",
	} {
		if c.who[k] != want {
			t.Errorf("%s is %q, want %q", k, c.who[k], want)
		}
	}
}

func TestACollectorThatIsAwayKeepsNobody(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close() // it accepts connections, and says nothing on them
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+listener.Addr().String())
	t.Setenv("OTEL_TRACES_SAMPLER", "always_on")
	core, logs := observer.New(zap.WarnLevel)
	tel, err := Open(t.Context(), Config{Service: "assetmill", Env: os.Getenv, Log: zap.New(core)})
	if err != nil {
		t.Fatal(err)
	}
	_, span := tel.Tracer().Start(t.Context(), "job")
	span.End()
	began := time.Now()
	closing := tel.Close(t.Context())
	if took := time.Since(began); took > flushTime+2*time.Second {
		t.Errorf("closing took %s", took)
	}
	if closing == nil && logs.FilterMessageSnippet("could not be sent").Len() == 0 {
		t.Error("nobody was told")
	}
}

func TestComplaintsAreSpaced(t *testing.T) {
	t.Parallel()
	core, logs := observer.New(zap.WarnLevel)
	c := &complaints{log: zap.New(core), what: "no"}
	for range 100 {
		c.hear(context.DeadlineExceeded)
		c.hear(nil)
	}
	c.last = c.last.Add(-complainEvery)
	c.hear(context.DeadlineExceeded)
	all := logs.All()
	if len(all) != 2 || all[0].ContextMap()["failures"] != int64(1) || all[1].ContextMap()["failures"] != int64(100) {
		t.Errorf("lines: %v", all)
	}
}

func TestTracesAreOffByDefault(t *testing.T) {
	t.Parallel()
	tel, err := Open(t.Context(), Config{Service: "assetmill"})
	if err != nil {
		t.Fatal(err)
	}
	defer tel.Close(t.Context())
	if tel.Tracer() != nil {
		t.Error("there is a tracer, and nobody to send to")
	}
	page := httptest.NewRecorder()
	tel.Handler().ServeHTTP(page, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{"go_goroutines ", "go_gc_gomemlimit_bytes ", "process_resident_memory_bytes ", `service_name="assetmill"`} {
		if !strings.Contains(page.Body.String(), want) {
			t.Errorf("/metrics lacks %s", want)
		}
	}
}

func TestBadSettingsAreRefused(t *testing.T) {
	t.Parallel()
	_, err := Open(t.Context(), Config{Env: env{"OTEL_TRACES_SAMPLER": "sometimes"}.get})
	if err == nil || !strings.Contains(err.Error(), "telemetry: OTEL_TRACES_SAMPLER is") {
		t.Errorf("the error is %v", err)
	}
}
