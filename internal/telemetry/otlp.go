package telemetry

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.uber.org/zap"
)

// complainEvery spaces the log lines about a collector that does not take what it is sent.
const complainEvery = time.Minute

// outlets are the exporters that the environment asks for; nil where it asks for none.
type outlets struct {
	spans   sdktrace.SpanExporter
	metrics sdkmetric.Exporter
}

// openOutlets makes the OTLP exporters whose endpoint is set.
func openOutlets(ctx context.Context, cfg Config) (o outlets, err error) {
	traces, err := wanted(cfg.Env, "TRACES", "none")
	if err != nil {
		return o, err
	}
	// /metrics is served anyway, whoever asks for it.
	metrics, err := wanted(cfg.Env, "METRICS", "none", "prometheus")
	if err != nil {
		return o, err
	}
	if traces {
		exporter, err := otlptracegrpc.New(ctx)
		if err != nil {
			return o, fmt.Errorf("OTLP traces: %w", err)
		}
		o.spans = spanOutlet{exporter, &complaints{log: cfg.Log, what: "traces could not be sent"}}
	}
	if metrics {
		exporter, err := otlpmetricgrpc.New(ctx)
		if err != nil {
			return o, fmt.Errorf("OTLP metrics: %w", err)
		}
		o.metrics = metricOutlet{exporter, &complaints{log: cfg.Log, what: "metrics could not be sent"}}
	}
	return o, nil
}

// wanted reports whether a signal is to be sent by OTLP; off are the values of its OTEL_..._EXPORTER that say no.
func wanted(env func(string) string, signal string, off ...string) (bool, error) {
	first := func(names ...string) (name, value string) {
		for _, name = range names {
			if value = strings.TrimSpace(env(name)); value != "" {
				return name, value
			}
		}
		return "", ""
	}
	_, endpoint := first("OTEL_EXPORTER_OTLP_"+signal+"_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
	if endpoint == "" || strings.EqualFold(env("OTEL_SDK_DISABLED"), "true") {
		return false, nil
	}
	name, exporter := first("OTEL_" + signal + "_EXPORTER")
	for _, no := range off {
		if exporter == no {
			return false, nil
		}
	}
	if exporter != "" && exporter != "otlp" {
		return false, fmt.Errorf("%s is %q; allowed: otlp, %s", name, exporter, strings.Join(off, ", "))
	}
	if name, protocol := first("OTEL_EXPORTER_OTLP_"+signal+"_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"); protocol != "" && protocol != "grpc" {
		return false, fmt.Errorf("%s is %q; this program speaks grpc, to a collector's port 4317 as a rule", name, protocol)
	}
	return true, nil
}

// complaints takes an exporter's errors off the SDK, which would print each of them to standard error.
type complaints struct {
	log  *zap.Logger
	what string

	mu   sync.Mutex
	last time.Time
	n    int // since the last line
}

func (c *complaints) hear(err error) {
	if err == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	if now := time.Now(); c.last.IsZero() || now.Sub(c.last) >= complainEvery {
		c.log.Warn(c.what, zap.Int("failures", c.n), zap.Error(err))
		c.last, c.n = now, 0
	}
}

type spanOutlet struct {
	sdktrace.SpanExporter
	complaints *complaints
}

// ExportSpans implements sdktrace.SpanExporter.
func (o spanOutlet) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	o.complaints.hear(o.SpanExporter.ExportSpans(ctx, spans))
	return nil
}

type metricOutlet struct {
	sdkmetric.Exporter
	complaints *complaints
}

// Export implements sdkmetric.Exporter.
func (o metricOutlet) Export(ctx context.Context, rm *metricdata.ResourceMetrics) error {
	o.complaints.hear(o.Exporter.Export(ctx, rm))
	return nil
}
