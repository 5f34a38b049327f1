package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"golang.org/x/term"

	"github.com/assetmill/assetmill/internal/telemetry"
	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/worker"
)

const (
	// statsInterval spaces the worker's progress lines in the log.
	statsInterval = 10 * time.Second
	// statusInterval spaces the lines of --stats, which a person watches.
	statusInterval = 5 * time.Second
	// metricsAddrSetting is where metrics are served when --metrics-addr does not say.
	metricsAddrSetting = "ASSETMILL_METRICS_ADDR"
)

// telemetryFlags are the part of worker's command line that says how it shows what it does.
type telemetryFlags struct {
	metricsAddr string
	profiles    bool
	stats       bool
}

func (f *telemetryFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.metricsAddr, "metrics-addr", "", "serve /metrics, /healthz and /readyz on this address, such as :9090 (default: "+metricsAddrSetting+", or not at all)")
	cmd.Flags().BoolVar(&f.profiles, "pprof", false, "serve /debug/pprof there too")
	cmd.Flags().BoolVar(&f.stats, "stats", false, fmt.Sprintf("on a terminal, print a line every %s", statusInterval))
}

// openTelemetry makes the providers of metrics and traces that the environment asks for.
func (a *app) openTelemetry(ctx context.Context, instance string, log *zap.Logger) (*telemetry.Telemetry, error) {
	t, err := telemetry.Open(ctx, telemetry.Config{Service: "assetmill", Version: version, Instance: instance, Env: a.env, Log: log})
	if err != nil {
		return nil, codeError{err, exitUsage}
	}
	return t, nil
}

// observation is how a worker shows what it does.
type observation struct {
	*telemetry.Telemetry
	health *telemetry.Health
	server *telemetry.Server            // nil: nothing is served
	resent func(table string, rows int) // counts rows that lineage sends again
	log    *zap.Logger
}

// observe opens the worker's metrics, traces and probes, and fits its memory to the container. It comes before the checks, so that probes are
// answered while these take their time.
func (a *app) observe(ctx context.Context, f *workerFlags, id string, log *zap.Logger) (_ *observation, err error) {
	addr := f.telemetry.metricsAddr
	if addr == "" {
		addr = a.env(metricsAddrSetting)
	}
	if f.telemetry.profiles && addr == "" {
		return nil, usageError("--pprof needs an address: set --metrics-addr")
	}
	telemetry.LimitMemory(log, int64(f.imageMemory)<<20)
	o := &observation{health: telemetry.NewHealth(), log: log}
	if o.Telemetry, err = a.openTelemetry(ctx, id, log); err != nil {
		return nil, err
	}
	if o.resent, err = telemetry.Resent(o.Meter()); err != nil {
		return nil, errors.Join(err, o.Close(ctx))
	}
	if addr == "" {
		return o, nil
	}
	if o.server, err = telemetry.Listen(addr, telemetry.Pages{Metrics: o.Handler(), Health: o.health, Profiles: f.telemetry.profiles}); err != nil {
		return nil, errors.Join(err, o.Close(ctx))
	}
	log.Info("serving metrics", zap.String("address", o.server.Addr()))
	return o, nil
}

// end sends what was not sent yet and closes the server.
func (o *observation) end() {
	if o.server != nil {
		if err := o.server.Close(); err != nil {
			o.log.Warn("metrics were not served to the end", zap.Error(err))
		}
	}
	if err := o.Close(context.Background()); err != nil {
		o.log.Warn("the last metrics or traces could not be sent", zap.Error(err))
	}
}

// show adds what the engine has to show.
func (o *observation) show(e *engine, f *workerFlags) error {
	return telemetry.Show(o.Meter(), telemetry.Sources{
		Lanes: e.laneStates, Capacity: f.concurrency, Heartbeat: e.ledger.LastBeat,
		Memory: func() (reserved, capacity int64, waiting int) {
			u := e.budget.Usage()
			return u.Reserved, u.Capacity, u.Waiting
		},
	})
}

// laneStates are the lanes as telemetry shows them.
func (e *engine) laneStates() []telemetry.Lane {
	var all []telemetry.Lane
	for _, s := range e.lanes.Snapshot() {
		all = append(all, telemetry.Lane{
			Name: s.Lane.Name, State: s.State.String(), InFlight: s.InFlight, Capacity: s.MaxInFlight, Waiting: s.Waiting, Rate: s.Rate, Throttled: s.Throttled,
		})
	}
	return all
}

// during lets the probes follow the work: ready while it takes jobs, stopping from the end of ctx, and then over.
func (o *observation) during(ctx context.Context, heartbeat func() time.Time, work func() error) error {
	o.health.Ready(heartbeat)
	defer o.health.Over()
	defer context.AfterFunc(ctx, o.health.Stopping)()
	return work()
}

// reporter tells a person, now and then, how a worker fares.
type reporter struct {
	every time.Duration
	// tell is told of each moment, and of the last one with over set. It is called by one goroutine at a time.
	tell func(s worker.Stats, over bool)
}

// newReporter prints lines on a terminal, if asked to, and else writes to the log.
func (a *app) newReporter(f *workerFlags, e *engine, log *zap.Logger) reporter {
	if f.telemetry.stats && isTerminal(a.err) {
		return a.lineReporter(f, e, log)
	}
	var last string
	return reporter{statsInterval, func(s worker.Stats, over bool) {
		if over {
			logStats(log, "stopped", s)
			return
		}
		known := s
		known.OldestAge, known.Unrecorded = 0, 0
		if now := fmt.Sprint(known); now != last { // an idle worker is silent
			last = now
			logStats(log, "progress", s)
		}
	}}
}

func (a *app) lineReporter(f *workerFlags, e *engine, log *zap.Logger) reporter {
	line := telemetry.NewStatusLine(time.Now())
	return reporter{statusInterval, func(s worker.Stats, over bool) {
		if over {
			logStats(log, "stopped", s)
			return
		}
		memory := e.budget.Usage()
		fmt.Fprintln(a.err, line.Line(time.Now(), telemetry.Progress{
			Held: s.InFlight, Capacity: f.concurrency, Images: s.Reasons[jobs.ReasonImage], Lanes: e.laneStates(),
			Reserved: memory.Reserved, Budget: memory.Capacity, OldestAge: s.OldestAge, Cost: s.Spent().Cents(),
		}))
	}}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func logStats(log *zap.Logger, message string, s worker.Stats) {
	log.Info(message, zap.Int("in_flight", s.InFlight),
		zap.Int("succeeded", s.Outcomes[jobs.Succeeded]), zap.Int("refused", s.Outcomes[jobs.Refused]), zap.Int("failed", s.Outcomes[jobs.Failed]),
		zap.Int("repeated", s.Repeated), zap.Int("given_back", s.Retried), zap.Int("throttled", s.Throttled), zap.Int("unreached", s.Unreached),
		zap.Int("taken_over", s.TakenOver), zap.Int("adopted", s.Adopted), zap.Int("fenced", s.Fenced), zap.Int("unknown", s.Unknown),
		zap.Int("paid_twice", s.Discarded), zap.Int("turned_away", s.TurnedAway), zap.String("cost_usd", s.Spent().Cents()))
}
