package worker

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/metric"
)

// Bounds of the histograms' buckets, in seconds.
var (
	// A call takes 7 to 60 s, and ten minutes at most.
	callBuckets = []float64{1, 2.5, 5, 7.5, 10, 15, 20, 30, 45, 60, 90, 120, 300, 600}
	// A request to a service takes tens of milliseconds; in an outage, operations take as long as it lasts.
	operationBuckets = []float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300}
	// A job waits for a lane from nothing to ten minutes, and in the queue from nothing to days.
	waitBuckets = []float64{0.1, 1, 5, 15, 30, 60, 150, 300, 600}
	jobBuckets  = []float64{10, 20, 30, 60, 120, 300, 600, 1800, 3600, 3 * 3600, 6 * 3600, 12 * 3600, 24 * 3600, 72 * 3600}
)

// makeInstruments makes the instruments that are recorded as things happen.
func (m *meters) makeInstruments(meter metric.Meter) error {
	var errs []error
	seconds := func(name, what string, buckets []float64) metric.Float64Histogram {
		h, err := meter.Float64Histogram(name, metric.WithUnit("s"), metric.WithDescription(what), metric.WithExplicitBucketBoundaries(buckets...))
		errs = append(errs, err)
		return h
	}
	count := func(name, unit, what string) metric.Int64Counter {
		c, err := meter.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(what))
		errs = append(errs, err)
		return c
	}
	m.calls = count("assetmill.calls.made", "{call}", "Calls that have ended, by how")
	m.callTime = seconds("assetmill.call.duration", "Time from a call's beginning to the end of its answer; calls without a whole answer are left out", callBuckets)
	m.laneWait = seconds("assetmill.lane.wait", "Time that a job waited for a lane, for one call", waitBuckets)
	m.duration = seconds("assetmill.operation.duration", "Time of an operation on the ledger, the storage, lineage or the results, with all its tries", operationBuckets)
	m.failures = count("assetmill.operation.failures", "{operation}", "Operations that failed for good, or until their time was over")
	m.retries = count("assetmill.operation.retries", "{try}", "Tries that failed and were repeated")
	m.stored = count("assetmill.assets.stored", "By", "Bytes of the images that were stored")
	m.queueTime = seconds("assetmill.queue.duration", "Time from a job's publication to the beginning of the call that ended it", jobBuckets)
	m.jobTime = seconds("assetmill.job.duration", "Time from a job's publication until the row of its end was durable", jobBuckets)
	m.lag = seconds("assetmill.lineage.lag", "Time from a job's end until its row was durable", operationBuckets)
	return errors.Join(errs...)
}

// nanoDollars is how many of jobs.USD are a dollar.
const nanoDollars = 1e9

// showTally registers what the tally counts. It is read when somebody collects, so that counting costs nothing more.
func (w *Worker) showTally(meter metric.Meter) error {
	var errs []error
	var all []metric.Observable
	count := func(name, unit, what string) metric.Int64ObservableCounter {
		c, err := meter.Int64ObservableCounter(name, metric.WithUnit(unit), metric.WithDescription(what))
		errs, all = append(errs, err), append(all, c)
		return c
	}
	age := func(name, what string) metric.Float64ObservableGauge {
		g, err := meter.Float64ObservableGauge(name, metric.WithUnit("s"), metric.WithDescription(what))
		errs, all = append(errs, err), append(all, g)
		return g
	}
	held, err := meter.Int64ObservableGauge("assetmill.messages.held", metric.WithUnit("{message}"), metric.WithDescription("Messages that are being handled"))
	errs, all = append(errs, err), append(all, held)
	cost, err := meter.Float64ObservableCounter("assetmill.cost.usd", metric.WithUnit("{USD}"), metric.WithDescription("Estimated cost of the calls, in US dollars"))
	errs, all = append(errs, err), append(all, cost)
	oldest := age("assetmill.messages.oldest_age", "Age since publication of the oldest message that is being handled; 0 when none is")
	unrecorded := age("assetmill.lineage.pending_age", "Time since the end of the oldest job whose row is not durable yet; 0 when there is none")
	ended := count("assetmill.jobs.ended", "{job}", "Jobs that have ended")
	idle := count("assetmill.deliveries", "{delivery}", "Deliveries of messages that ended no job")
	events := count("assetmill.pay_once.events", "{event}", "Events in which money may have been spent twice")
	if err := errors.Join(errs...); err != nil {
		return err
	}
	_, err = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		s := w.tally.snapshot(time.Now())
		o.ObserveInt64(held, int64(s.InFlight))
		o.ObserveFloat64(oldest, s.OldestAge.Seconds())
		o.ObserveFloat64(unrecorded, s.Unrecorded.Seconds())
		for campaign, usd := range s.Cost {
			o.ObserveFloat64(cost, float64(usd)/nanoDollars, metric.WithAttributeSet(attributes("campaign", campaign)))
		}
		for reason, n := range s.Reasons {
			o.ObserveInt64(ended, int64(n), metric.WithAttributeSet(attributes("outcome", string(reason.Outcome()), "reason", string(reason))))
		}
		for what, n := range map[string]int{"repeated": s.Repeated, "given_back": s.Retried, "turned_away": s.TurnedAway} {
			o.ObserveInt64(idle, int64(n), metric.WithAttributeSet(attributes("result", what)))
		}
		for event, n := range map[string]int{
			"taken_over": s.TakenOver, "adopted": s.Adopted, "fenced": s.Fenced, "unknown": s.Unknown, "discarded": s.Discarded,
		} {
			o.ObserveInt64(events, int64(n), metric.WithAttributeSet(attributes("event", event)))
		}
		return nil
	}, all...)
	return err
}

// showRetrying registers how many operations of each kind are between two tries.
func (m *meters) showRetrying(meter metric.Meter) error {
	gauge, err := meter.Int64ObservableGauge("assetmill.operation.retrying", metric.WithUnit("{operation}"), metric.WithDescription("Operations that have failed and will be tried again"))
	if err != nil {
		return err
	}
	_, err = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		for _, kind := range m.operations {
			o.ObserveInt64(gauge, kind.retrying.Load(), metric.WithAttributeSet(attributes("op", kind.name)))
		}
		return nil
	}, gauge)
	return err
}
