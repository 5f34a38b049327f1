package telemetry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/attribute"
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
)

const (
	// scope names this program as the source of its metrics and spans.
	scope = "github.com/assetmill/assetmill"
	// flushTime bounds the last export. A process that stops has its work behind it, and its container a grace that it must not spend on a
	// collector that is away.
	flushTime = 5 * time.Second
	// maxScrapes is how many answers on /metrics are made at a time; a second scraper is common, a fifth is a mistake.
	maxScrapes = 4
	// scrapeTime bounds one of them. Collecting takes milliseconds.
	scrapeTime = 10 * time.Second
)

// Config says who the process is and where its settings come from.
type Config struct {
	Service  string // as service.name; OTEL_SERVICE_NAME overrides it
	Version  string
	Instance string // unique among all processes of the service
	// Env looks up a variable of the environment. The exporters read their own OTEL_EXPORTER_OTLP_* from the process's environment.
	Env func(string) string
	Log *zap.Logger // nil: none
}

// Telemetry is a process's providers of metrics and traces. It is safe for concurrent use.
type Telemetry struct {
	registry *prometheus.Registry
	meters   *sdkmetric.MeterProvider
	tracers  *sdktrace.TracerProvider // nil: traces are off
}

// Open makes the providers. Metrics are always collected, for Handler; they are sent by OTLP, and traces are made and sent, only when the
// environment names an endpoint: see docs/observability.md. It fails on settings that make no sense. It does not talk to the
// endpoint, so a collector that is away never keeps a worker from its work.
func Open(ctx context.Context, cfg Config) (*Telemetry, error) {
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	if cfg.Env == nil {
		cfg.Env = func(string) string { return "" }
	}
	t := &Telemetry{registry: prometheus.NewRegistry()}
	t.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if err := t.open(ctx, cfg); err != nil {
		return nil, fmt.Errorf("telemetry: %w", err)
	}
	return t, nil
}

func (t *Telemetry) open(ctx context.Context, cfg Config) error {
	sampler, err := newSampler(cfg.Env)
	if err != nil {
		return err
	}
	outlets, err := openOutlets(ctx, cfg)
	if err != nil {
		return err
	}
	// The environment comes last and wins.
	who, err := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithAttributes(
		attribute.String("service.name", cfg.Service),
		attribute.String("service.version", cfg.Version),
		attribute.String("service.instance.id", cfg.Instance),
	), resource.WithFromEnv())
	if err != nil {
		return err
	}
	page, err := otelprom.New(otelprom.WithRegisterer(t.registry), otelprom.WithoutScopeInfo())
	if err != nil {
		return err
	}
	options := []sdkmetric.Option{sdkmetric.WithResource(who), sdkmetric.WithReader(page)}
	if outlets.metrics != nil {
		options = append(options, sdkmetric.WithReader(sdkmetric.NewPeriodicReader(outlets.metrics)))
	}
	t.meters = sdkmetric.NewMeterProvider(options...)
	if outlets.spans != nil {
		t.tracers = sdktrace.NewTracerProvider(sdktrace.WithResource(who), sdktrace.WithSampler(sampler), sdktrace.WithBatcher(outlets.spans))
	}
	return nil
}

// Meter returns the meter for all metrics of the process.
func (t *Telemetry) Meter() metric.Meter { return t.meters.Meter(scope) }

// Tracer returns the tracer for all spans of the process, or nil when traces are off.
func (t *Telemetry) Tracer() trace.Tracer {
	if t.tracers == nil {
		return nil
	}
	return t.tracers.Tracer(scope)
}

// Handler serves all metrics in the format of Prometheus, the Go runtime's included.
func (t *Telemetry) Handler() http.Handler {
	return promhttp.HandlerFor(t.registry, promhttp.HandlerOpts{
		ErrorHandling: promhttp.ContinueOnError, EnableOpenMetrics: true, MaxRequestsInFlight: maxScrapes, Timeout: scrapeTime,
	})
}

// Close sends what was not sent yet and ends the providers, within seconds whatever the collector does. Nothing is measured
// afterwards.
func (t *Telemetry) Close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, flushTime)
	defer cancel()
	var ends []func(context.Context) error
	if t.tracers != nil {
		ends = append(ends, t.tracers.Shutdown)
	}
	ends = append(ends, t.meters.Shutdown)
	// Side by side, so that traces that can't be sent do not use up the time of the metrics.
	errs := make(chan error, len(ends))
	for _, end := range ends {
		go func() { errs <- end(ctx) }()
	}
	var all error
	for range ends {
		all = errors.Join(all, <-errs)
	}
	if all != nil {
		return fmt.Errorf("close telemetry: %w", all)
	}
	return nil
}
