package worker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/assetmill/assetmill/internal/retry"
	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
)

// ports that answer at once, so that what is left is the worker's own cost.
type (
	instantLedger  struct{}
	instantLanes   struct{}
	instantModel   struct{}
	instantAssets  struct{}
	instantRows    struct{}
	instantTopic   struct{}
	instantWishes  struct{}
	instantPermits struct{}
)

func (instantLedger) Claim(_ context.Context, id string, d jobs.Digest) (Standing, error) {
	return Standing{State: Granted, Ticket: Ticket{JobID: id, Digest: d}}, nil
}
func (instantLedger) Confirm(context.Context, Ticket) error                   { return nil }
func (instantLedger) Finish(context.Context, Ticket, Record) error            { return nil }
func (instantLedger) Release(context.Context, Ticket, Spent) error            { return nil }
func (instantLedger) Beat(ctx context.Context)                                { <-ctx.Done() }
func (instantLanes) Next(context.Context, *jobs.Job) (Permit, error)          { return instantPermits{}, nil }
func (instantPermits) Lane() Lane                                             { return Lane{Name: "lane", Tier: "standard"} }
func (instantPermits) End(error)                                              {}
func (instantPermits) Drop()                                                  {}
func (instantAssets) Prefix(*jobs.Job) string                                 { return "" }
func (instantAssets) Store(context.Context, *jobs.Job, *Image) (Asset, error) { return Asset{}, nil }
func (instantAssets) Take(context.Context, *jobs.Job, string) (Asset, error) {
	return Asset{URI: "gs://a/b", Bytes: 9}, nil
}
func (instantAssets) Find(context.Context, *jobs.Job) (Asset, bool, error) {
	return Asset{}, false, nil
}
func (instantRows) AppendGeneration(context.Context, *schemas.GenerationRow) error { return nil }
func (instantRows) AppendAttempt(context.Context, *schemas.AttemptRow) error       { return nil }
func (instantTopic) Publish(context.Context, *schemas.JobResult) error             { return nil }
func (instantWishes) Control(context.Context, string) (Control, error)             { return Proceed, nil }
func (instantModel) Generate(context.Context, Call) (*Answer, error) {
	return &Answer{Reason: jobs.ReasonImage, Written: "gs://a/b", Usage: jobs.Usage{Image: 1120}}, nil
}

func instantPorts() Ports {
	return Ports{
		Controls: instantWishes{}, Ledger: instantLedger{}, Lanes: instantLanes{}, Model: instantModel{}, Assets: instantAssets{},
		Lineage: instantRows{}, Results: instantTopic{},
	}
}

func instantRun(cfg Config, ports Ports) *run {
	cfg.ID, cfg.Catalogue = "w1", jobs.DefaultCatalogue()
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	ctx := context.Background()
	return &run{Worker: New(cfg, ports), receiving: ctx, calls: ctx, settle: ctx, halt: func(error) {}}
}

func foxMessage(n int) *jobs.Delivery {
	return &jobs.Delivery{ID: "m", Data: fmt.Appendf(nil, `{"id":"fox-%d","prompt":"a red fox","campaign":"spring"}`, n), Published: time.Now()}
}

// BenchmarkJob measures the worker's own work for one job. What a case takes beyond "bare" is the cost of telemetry.
func BenchmarkJob(b *testing.B) {
	meter := func() metric.Meter {
		return sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader())).Meter("bench")
	}
	tracer := func(s sdktrace.Sampler) trace.Tracer {
		return sdktrace.NewTracerProvider(sdktrace.WithSampler(s)).Tracer("bench")
	}
	for _, bb := range []struct {
		name string
		cfg  Config
	}{
		{"bare", Config{}},
		{"metrics", Config{Meter: meter()}},
		{"metrics and an unsampled trace", Config{Meter: meter(), Tracer: tracer(sdktrace.NeverSample())}},
		{"metrics and a sampled trace", Config{Meter: meter(), Tracer: tracer(sdktrace.AlwaysSample())}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			r, d := instantRun(bb.cfg, instantPorts()), foxMessage(1)
			b.ReportAllocs()
			for b.Loop() {
				if v := r.handle(b.Context(), d); v.Action != jobs.Ack {
					b.Fatal(v)
				}
			}
		})
	}
}

// troubledLedger fails for a while before each claim succeeds.
type troubledLedger struct {
	instantLedger
	outage time.Duration
}

func (l troubledLedger) Claim(ctx context.Context, id string, d jobs.Digest) (standing Standing, err error) {
	over := time.Now().Add(l.outage)
	err = retry.Do(ctx, func(error) bool { return true }, func(context.Context) error {
		if time.Now().Before(over) {
			return errors.New("503")
		}
		standing, err = l.instantLedger.Claim(ctx, id, d)
		return err
	})
	return standing, err
}

// collect returns the values of one metric, by their attributes.
func collect(t *testing.T, reader sdkmetric.Reader, name string) map[string]int64 {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	values := map[string]int64{}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			var points []metricdata.DataPoint[int64]
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				points = data.DataPoints
			case metricdata.Gauge[int64]:
				points = data.DataPoints
			}
			for _, p := range points {
				if m.Name == name {
					values[p.Attributes.Encoded(attribute.DefaultEncoder())] = p.Value
				}
			}
		}
	}
	return values
}

func TestAnOutageShowsWhileItLasts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reader := sdkmetric.NewManualReader()
		core, logs := observer.New(zap.WarnLevel)
		ports := instantPorts()
		ports.Ledger = troubledLedger{outage: 10 * time.Minute}
		r := instantRun(Config{Meter: sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)).Meter("test"), Log: zap.New(core)}, ports)
		done := make(chan jobs.Verdict)
		const held = 100
		for n := range held {
			go func() { done <- r.handle(t.Context(), foxMessage(n)) }()
		}
		time.Sleep(5 * time.Minute)
		if n := collect(t, reader, "assetmill.operation.retrying")["op=claim"]; n != held {
			t.Errorf("%d operations are between two tries, want %d", n, held)
		}
		if n := collect(t, reader, "assetmill.operation.retries")["op=claim"]; n < held*15 {
			t.Errorf("%d tries were counted in five minutes", n)
		}
		// One line for all of them, every ten seconds.
		if n := logs.Len(); n < 15 || n > 31 {
			t.Errorf("%d lines in the log of five minutes", n)
		}
		for range held {
			<-done
		}
		if n := collect(t, reader, "assetmill.operation.retrying")["op=claim"]; n != 0 {
			t.Errorf("%d operations are between two tries after the outage", n)
		}
		if n := collect(t, reader, "assetmill.operation.failures"); len(n) != 0 {
			t.Errorf("failures: %v", n)
		}
	})
}

func TestCampaignsAreBounded(t *testing.T) {
	t.Parallel()
	y := &tally{}
	for n := range 3 * maxCampaigns {
		y.spent(&schemas.AttemptRow{Campaign: fmt.Sprint("c", n), Result: resultImage}, 2)
		y.spent(&schemas.AttemptRow{Campaign: "c0", Result: resultUnknown}, 1)
	}
	s := y.snapshot(time.Now())
	if len(s.Cost) != maxCampaigns+1 || s.Cost["c0"] != 2+3*maxCampaigns || s.Cost["c7"] != 2 || s.Cost[otherCampaigns] != 2*2*maxCampaigns {
		t.Errorf("%d campaigns, c0 %d, others %d", len(s.Cost), s.Cost["c0"], s.Cost[otherCampaigns])
	}
	if s.Spent() != 9*maxCampaigns || s.Unknown != 3*maxCampaigns {
		t.Errorf("spent %d, %d unknown", s.Spent(), s.Unknown)
	}
}

func TestAgesAreOfTheOldest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		y := &tally{}
		old := &task{delivery: &jobs.Delivery{Published: time.Now().Add(-time.Hour)}}
		young := &task{delivery: &jobs.Delivery{Published: time.Now().Add(-time.Minute)}}
		y.begin(old)
		y.begin(young)
		y.ended(young, jobs.ReasonImage)
		time.Sleep(10 * time.Second)
		check := func(when string, oldest, unrecorded time.Duration) {
			t.Helper()
			if s := y.snapshot(time.Now()); s.OldestAge != oldest || s.Unrecorded != unrecorded {
				t.Errorf("%s: %v and %v, want %v and %v", when, s.OldestAge, s.Unrecorded, oldest, unrecorded)
			}
		}
		check("both held", time.Hour+10*time.Second, 10*time.Second)
		y.stored(young)
		y.end(old)
		check("one stored, one gone", 70*time.Second, 0)
		y.end(young)
		check("nothing held", 0, 0)
	})
}

func TestEveryEndOfACallHasAResult(t *testing.T) {
	t.Parallel()
	known := strings.Join(callResults, " ")
	for kind, want := range map[Kind]string{
		Throttled: "throttled", Failing: "error", Unanswered: "unknown", Rejected: "error", Denied: "denied", Interrupted: "interrupted", Unreached: "unreached",
	} {
		if got := callResult(nil, fmt.Errorf("call: %w", &CallError{Kind: kind})); got != want || !strings.Contains(known, got) {
			t.Errorf("%s: %q, want %q", kind, got, want)
		}
	}
	for reason, want := range map[jobs.Reason]string{
		jobs.ReasonImage: "image", jobs.ReasonNoImage: "refused", jobs.ReasonPromptFilter: "refused", jobs.ReasonBadAnswer: "useless",
	} {
		if got := callResult(&Answer{Reason: reason}, nil); got != want || !strings.Contains(known, got) {
			t.Errorf("%s: %q, want %q", reason, got, want)
		}
	}
	if got := callResult(nil, errors.New("a bug")); got != "unknown" {
		t.Errorf("an error that no model may return: %q", got)
	}
}

func TestErrorTypes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err  error
		want string
	}{
		{fmt.Errorf("finish: %w", ErrFenced), "fenced"},
		{fmt.Errorf("append: %w: %w", ErrRowRefused, errors.New("field prompt")), "row_refused"},
		{fmt.Errorf("%w: %w", errOvertime, context.Canceled), "overtime"},
		{context.DeadlineExceeded, "timeout"},
		{&CallError{Kind: Failing}, "failing"},
		{errors.New("a secret prompt"), "other"},
	} {
		if got := errorType(tt.err); got != tt.want {
			t.Errorf("%v: %q, want %q", tt.err, got, tt.want)
		}
	}
}

func TestWithoutAMeterNothingIsMeasured(t *testing.T) {
	t.Parallel()
	ports := instantPorts()
	if w := New(Config{}, ports); w.ports != ports || w.meters != nil {
		t.Error("the ports are wrapped, and nobody looks")
	}
}

// heldLedger has every job held by a batch.
type heldLedger struct{ instantLedger }

func (heldLedger) Claim(context.Context, string, jobs.Digest) (Standing, error) {
	return Standing{State: Busy, Holder: "batch b-1"}, nil
}

// Thousands of jobs of a batch can come back again and again until it is closed.
func TestHeldJobsStayOutOfTheLog(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		level zapcore.Level
		lines int
	}{{zap.InfoLevel, 0}, {zap.DebugLevel, 1}} {
		core, logs := observer.New(test.level)
		ports := instantPorts()
		ports.Ledger = heldLedger{}
		r := instantRun(Config{Log: zap.New(core)}, ports)
		if v := r.handle(t.Context(), foxMessage(1)); v.Action != jobs.Retry || v.After != busyPause || v.Detail != "the job is held by batch b-1" {
			t.Errorf("%+v", v)
		}
		if logs.Len() != test.lines || r.tally.snapshot(time.Now()).Retried != 1 {
			t.Errorf("at %s: %v; given back: %d", test.level, logs.All(), r.tally.snapshot(time.Now()).Retried)
		}
	}
}
