package telemetry

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// Lane is a lane of the worker at one moment.
type Lane struct {
	Name      string
	State     string // open, probing, broken or shut
	InFlight  int
	Capacity  int     // calls in flight that the lane may have; 0: unknown
	Waiting   int     // jobs that wait and that the lane could serve
	Rate      float64 // calls a minute that the lane has learned to take
	Throttled float64 // share of the calls of the last minute, 0 to 1
}

// idle reports whether there is nothing to say about a lane: it may be for another model.
func (l Lane) idle() bool {
	return l.State == "open" && l.InFlight == 0 && l.Waiting == 0 && l.Throttled == 0
}

// Sources say what there is to show besides what the worker measures itself. Nil ones are not shown. They are called at each collection,
// by several goroutines.
type Sources struct {
	// Lanes are shown from their first use, or trouble, on: a worker has a lane for each model and region, and uses a few.
	Lanes func() []Lane
	// Capacity is the number of messages that may be handled at a time. 0 is not shown.
	Capacity int
	// Memory is the budget of image bytes: reserved, its capacity, and how many answers wait for room.
	Memory func() (reserved, capacity int64, waiting int)
	// Heartbeat is when the ledger's last sign of life was written; zero: none yet.
	Heartbeat func() time.Time
}

// Show registers the gauges of what the sources say.
func Show(m metric.Meter, s Sources) error {
	var errs []error
	if s.Lanes != nil {
		errs = append(errs, showLanes(m, s.Lanes))
	}
	if s.Capacity > 0 {
		errs = append(errs, showCapacity(m, s.Capacity))
	}
	if s.Memory != nil {
		errs = append(errs, showMemory(m, s.Memory))
	}
	if s.Heartbeat != nil {
		errs = append(errs, showHeartbeat(m, s.Heartbeat))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	return nil
}

// gauges makes observable gauges and collects the errors, which only wrong names can cause.
type gauges struct {
	metric.Meter
	errs []error
	all  []metric.Observable
}

func (g *gauges) ints(name, unit, what string) metric.Int64ObservableGauge {
	i, err := g.Int64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(what))
	g.errs, g.all = append(g.errs, err), append(g.all, i)
	return i
}

func (g *gauges) floats(name, unit, what string) metric.Float64ObservableGauge {
	i, err := g.Float64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(what))
	g.errs, g.all = append(g.errs, err), append(g.all, i)
	return i
}

func (g *gauges) register(observe func(metric.Observer)) error {
	if err := errors.Join(g.errs...); err != nil {
		return err
	}
	_, err := g.RegisterCallback(func(_ context.Context, o metric.Observer) error { observe(o); return nil }, g.all...)
	return err
}

func showLanes(m metric.Meter, lanes func() []Lane) error {
	g := gauges{Meter: m}
	inFlight := g.ints("assetmill.calls.in_flight", "{call}", "Calls that are under way")
	capacity := g.ints("assetmill.calls.capacity", "{call}", "Calls that may be under way")
	share := g.floats("assetmill.calls.utilization", "1", "Calls that are under way, as a share of those that may be")
	waiting := g.ints("assetmill.lane.waiting", "{job}", "Jobs that wait and that the lane could serve; one that several lanes could serve counts at each")
	rate := g.floats("assetmill.lane.rate", "{call}/min", "Calls a minute that the lane has learned to take")
	throttled := g.floats("assetmill.lane.throttled", "1", "Share of the calls of the last minute that were throttled")
	state := g.ints("assetmill.lane.state", "{lane}", "1 for the state that the lane is in")
	used := usedLanes{names: map[string]bool{}}
	return g.register(func(o metric.Observer) {
		for _, l := range used.of(lanes()) {
			name := attribute.String("lane", l.Name)
			of := metric.WithAttributeSet(attribute.NewSet(name))
			o.ObserveInt64(inFlight, int64(l.InFlight), of)
			if l.Capacity > 0 {
				o.ObserveInt64(capacity, int64(l.Capacity), of)
				o.ObserveFloat64(share, float64(l.InFlight)/float64(l.Capacity), of)
			}
			o.ObserveInt64(waiting, int64(l.Waiting), of)
			o.ObserveFloat64(rate, l.Rate, of)
			o.ObserveFloat64(throttled, l.Throttled, of)
			o.ObserveInt64(state, 1, metric.WithAttributeSet(attribute.NewSet(name, attribute.String("state", l.State))))
		}
	})
}

// usedLanes remembers which lanes have had something to show.
type usedLanes struct {
	mu    sync.Mutex // collections may run side by side
	names map[string]bool
}

// of returns the lanes that have something to show, or had before.
func (u *usedLanes) of(all []Lane) []Lane {
	u.mu.Lock()
	defer u.mu.Unlock()
	var used []Lane
	for _, l := range all {
		if !l.idle() {
			u.names[l.Name] = true
		}
		if u.names[l.Name] {
			used = append(used, l)
		}
	}
	return used
}

func showCapacity(m metric.Meter, capacity int) error {
	g := gauges{Meter: m}
	gauge := g.ints("assetmill.messages.capacity", "{message}", "Messages that may be handled at a time")
	return g.register(func(o metric.Observer) { o.ObserveInt64(gauge, int64(capacity)) })
}

func showMemory(m metric.Meter, memory func() (reserved, capacity int64, waiting int)) error {
	g := gauges{Meter: m}
	used := g.ints("assetmill.image_memory.used", "By", "Bytes of the image budget that are reserved")
	limit := g.ints("assetmill.image_memory.limit", "By", "Bytes of the image budget")
	waiting := g.ints("assetmill.image_memory.waiting", "{call}", "Answers that wait for room in the image budget")
	return g.register(func(o metric.Observer) {
		reserved, capacity, queue := memory()
		o.ObserveInt64(used, reserved)
		o.ObserveInt64(limit, capacity)
		o.ObserveInt64(waiting, int64(queue))
	})
}

func showHeartbeat(m metric.Meter, last func() time.Time) error {
	g := gauges{Meter: m}
	age := g.floats("assetmill.heartbeat.age", "s", "Time since the worker's last sign of life was written to the ledger")
	return g.register(func(o metric.Observer) {
		if at := last(); !at.IsZero() {
			o.ObserveFloat64(age, time.Since(at).Seconds())
		}
	})
}

// Resent returns a function that counts rows which lineage sends again, and that is told the table and the number of rows. It is safe for concurrent use.
func Resent(m metric.Meter) (func(table string, rows int), error) {
	counter, err := m.Int64Counter("assetmill.lineage.rows.resent", metric.WithUnit("{row}"), metric.WithDescription("Rows that are sent to BigQuery again"))
	if err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return func(table string, rows int) {
		counter.Add(context.Background(), int64(rows), metric.WithAttributeSet(attribute.NewSet(attribute.String("table", table))))
	}, nil
}
