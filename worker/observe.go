package worker

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
	"go.uber.org/zap"

	"github.com/assetmill/assetmill/internal/retry"
	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
)

// tellEvery spaces the log lines about operations of one kind that are tried again: in an outage thousands are.
const tellEvery = 10 * time.Second

// fromMemory is how long a quiet operation takes at most that was answered from memory. Such operations are not timed: there are several to a
// job, and they would hide the ones that went to a service.
const fromMemory = time.Millisecond

// meters are a worker's instruments. What happens is counted by the tally; meters show it, and time what goes through the ports.
// docs/metrics.md lists all of them.
type meters struct {
	log    *zap.Logger
	tracer trace.Tracer

	operations []*operation
	duration   metric.Float64Histogram // of operations
	failures   metric.Int64Counter
	retries    metric.Int64Counter

	lanes    sync.Map // of *laneMeters, by name
	calls    metric.Int64Counter
	callTime metric.Float64Histogram
	laneWait metric.Float64Histogram

	stored    metric.Int64Counter
	queueTime metric.Float64Histogram
	jobTime   metric.Float64Histogram
	lag       metric.Float64Histogram
	outcomes  map[string][]metric.RecordOption
}

// observe puts the instruments around the worker's ports. Without a meter and a tracer it changes nothing, and nothing is measured.
func (w *Worker) observe() {
	if w.cfg.Meter == nil && w.cfg.Tracer == nil {
		return
	}
	m := &meters{log: w.cfg.Log, tracer: w.cfg.Tracer, outcomes: map[string][]metric.RecordOption{}}
	if m.tracer == nil {
		m.tracer = tracenoop.Tracer{}
	}
	var meter metric.Meter = noop.Meter{}
	if w.cfg.Meter != nil {
		meter = w.cfg.Meter
	}
	for _, reason := range jobs.Reasons() {
		m.outcomes[string(reason.Outcome())] = recordOptions("outcome", string(reason.Outcome()))
	}
	err := m.makeInstruments(meter)
	p := &w.ports
	p.Controls = observedControls{p.Controls, m.quiet("control")}
	p.Ledger = observedLedger{p.Ledger, m.kind("claim"), m.quiet("confirm"), m.kind("finish"), m.kind("release")}
	p.Lanes = observedLanes{p.Lanes, m}
	p.Model = observedModel{p.Model, m}
	p.Assets = observedAssets{p.Assets, m, m.kind("store"), m.kind("take"), m.kind("find")}
	p.Lineage = observedLineage{p.Lineage, m.kind("append_generation"), m.kind("append_attempt")}
	p.Results = observedResults{p.Results, m.kind("publish_result")}
	if err = errors.Join(err, w.showTally(meter), m.showRetrying(meter)); err != nil {
		w.cfg.Log.Error("some metrics are missing", zap.Error(err)) // only a wrong name can cause it, and tests know them all
	}
	w.meters = m
}

// operation is one kind of operation on a port.
type operation struct {
	*meters
	name     string
	spanName string // "": operations of this kind are mostly answered from memory, and have no spans
	record   []metric.RecordOption
	add      []metric.AddOption
	retrying atomic.Int64 // those that failed and will be tried again
	told     atomic.Int64 // when the last line about it was logged, in nanoseconds
}

// kind returns a new kind of operation.
func (m *meters) kind(name string) *operation {
	o := m.quiet(name)
	o.spanName = strings.ReplaceAll(name, "_", " ")
	return o
}

// quiet returns a new kind of operation without spans.
func (m *meters) quiet(name string) *operation {
	o := &operation{meters: m, name: name, record: recordOptions("op", name), add: addOptions("op", name)}
	m.operations = append(m.operations, o)
	return o
}

// recordOptions and addOptions are made once for each set of attributes: making them takes longer than recording.
func recordOptions(pairs ...string) []metric.RecordOption {
	return []metric.RecordOption{metric.WithAttributeSet(attributes(pairs...))}
}

func addOptions(pairs ...string) []metric.AddOption {
	return []metric.AddOption{metric.WithAttributeSet(attributes(pairs...))}
}

func attributes(pairs ...string) attribute.Set {
	var all []attribute.KeyValue
	for i := 0; i < len(pairs); i += 2 {
		all = append(all, attribute.String(pairs[i], pairs[i+1]))
	}
	return attribute.NewSet(all...)
}

// measurement is one operation under way.
type measurement struct {
	*operation
	ctx   context.Context
	span  trace.Span // nil: the job is not traced
	began time.Time
	tries int // that failed and were repeated
}

// begin begins to measure an operation, which must use the context that it returns.
func (o *operation) begin(ctx context.Context) (context.Context, *measurement) {
	m := &measurement{operation: o, began: time.Now()}
	m.ctx, m.span = o.start(ctx, o.spanName)
	return retry.Observe(m.ctx, m), m
}

// start begins the span of a step of a traced job; for others it returns nil.
func (m *meters) start(ctx context.Context, name string) (context.Context, trace.Span) {
	if name == "" || !trace.SpanFromContext(ctx).IsRecording() {
		return ctx, nil
	}
	return m.tracer.Start(ctx, name)
}

// Failed implements retry.Observer: an outage shows while it lasts, in the metrics and, now and then, in the log.
func (m *measurement) Failed(err error) {
	if m.tries++; m.tries == 1 {
		m.retrying.Add(1)
	}
	m.retries.Add(m.ctx, 1, m.add...)
	now, told := time.Now().UnixNano(), m.told.Load()
	if now-told >= int64(tellEvery) && m.told.CompareAndSwap(told, now) {
		m.log.Warn("an operation failed and is tried again", zap.String("op", m.name), zap.Int("tries", m.tries),
			zap.Int64("jobs_affected", m.retrying.Load()), zap.Error(err))
	}
}

// end says how the operation ended.
func (m *measurement) end(err error) {
	if took := time.Since(m.began); m.spanName != "" || took >= fromMemory {
		m.duration.Record(m.ctx, took.Seconds(), m.record...)
	}
	if m.tries > 0 {
		m.retrying.Add(-1)
	}
	if err != nil {
		m.failures.Add(m.ctx, 1, addOptions("op", m.name, "error.type", errorType(err))...)
	}
	if m.tries > 0 && m.span != nil {
		m.span.SetAttributes(attribute.Int("assetmill.tries", m.tries+1))
	}
	endSpan(m.span, err)
}

// laneMeters are the attributes of one lane's measurements.
type laneMeters struct {
	record  []metric.RecordOption
	results map[string][]metric.AddOption
}

// lane returns the attributes for a lane. There are as many as the configuration has lanes.
func (m *meters) lane(name string) *laneMeters {
	if known, ok := m.lanes.Load(name); ok {
		return known.(*laneMeters)
	}
	l := &laneMeters{record: recordOptions("lane", name), results: map[string][]metric.AddOption{}}
	for _, result := range callResults {
		l.results[result] = addOptions("lane", name, "result", result)
	}
	known, _ := m.lanes.LoadOrStore(name, l)
	return known.(*laneMeters)
}

// rowStored notes that a row is durable.
func (t *task) rowStored(row *schemas.GenerationRow) {
	if !t.ended {
		return // the row of an end that was recorded before, perhaps long ago
	}
	t.tally.stored(t)
	if t.meters == nil {
		return
	}
	now := time.Now()
	t.meters.lag.Record(t.settle, now.Sub(time.UnixMicro(row.GetFinishedAt())).Seconds())
	if row.QueueMs != nil {
		t.meters.queueTime.Record(t.settle, float64(row.GetQueueMs())/1000)
	}
	if row.GetPublishedAt() != 0 {
		t.meters.jobTime.Record(t.settle, now.Sub(time.UnixMicro(row.GetPublishedAt())).Seconds(), t.meters.outcomes[row.GetOutcome()]...)
	}
}
