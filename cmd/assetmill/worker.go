package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sync/errgroup"

	"github.com/assetmill/assetmill/worker"
)

const (
	// defaultConcurrency is modest: a new project gets 2 to 20 calls a minute from Vertex.
	defaultConcurrency = 64
	// maxConcurrency is the design's largest number of calls in flight in one process.
	maxConcurrency = 3200
	// defaultImageMemory holds 170 images of 1.5 MiB, more than a burst of answers brings on one machine.
	defaultImageMemory = 256 // MiB
	// localStreams is how many streams an emulator's subscription is read with: pstest sends one message every 10 ms on each.
	localStreams = 25
	// cloudStreams carry 10 MB/s each, thousands of jobs a second.
	cloudStreams = 2
)

// workerFlags are the command line of worker.
type workerFlags struct {
	concurrency int
	imageMemory int
	grace       time.Duration
	logLevel    string
	streams     int
	inline      bool
	telemetry   telemetryFlags
	batch       batchFlags
}

func (a *app) workerCommand() *cobra.Command {
	f := &workerFlags{}
	cmd := &cobra.Command{
		Use:   "worker",
		Short: "Work on jobs until stopped",
		Long: `Work on jobs until stopped: take them from the queue, have the model make their images, store these, and record lineage.

SIGTERM or Ctrl-C stops in order: no further job is begun, calls in flight have --grace to end, what they made is stored and
recorded. A second signal ends the grace at once. Give the process the grace plus half a minute before killing it. Logs go to standard error, as JSON unless that is
a terminal.`,
		Example: `  assetmill worker --concurrency 200
  assetmill worker --stats
  assetmill worker --metrics-addr :9090 --log-level debug`,
		Args: exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.worker(cmd.Context(), f) },
	}
	cmd.Flags().IntVar(&f.concurrency, "concurrency", defaultConcurrency, fmt.Sprintf("calls in flight, 1 to %d", maxConcurrency))
	cmd.Flags().IntVar(&f.imageMemory, "image-memory", defaultImageMemory, "MiB of images in memory at a time")
	cmd.Flags().DurationVar(&f.grace, "grace", worker.DefaultGrace, "how long calls in flight may go on after a signal to stop")
	cmd.Flags().StringVar(&f.logLevel, "log-level", "info", "debug, info, warn or error")
	cmd.Flags().IntVar(&f.streams, "streams", 0, fmt.Sprintf("Pub/Sub streams (default %d; %d with an emulator)", cloudStreams, localStreams))
	cmd.Flags().BoolVar(&f.inline, "inline", false, "never ask models to write their images to Cloud Storage themselves")
	f.telemetry.add(cmd)
	f.batch.register(cmd)
	return cmd
}

func (a *app) worker(ctx context.Context, f *workerFlags) error {
	level, err := zapcore.ParseLevel(f.logLevel)
	switch {
	case err != nil:
		return usageError("--log-level %q; allowed: debug, info, warn, error", f.logLevel)
	case f.concurrency < 1 || f.concurrency > maxConcurrency:
		return usageError("--concurrency is %d; allowed: 1 to %d", f.concurrency, maxConcurrency)
	case f.imageMemory < 16:
		return usageError("--image-memory is %d; an image can take 16 MiB or more", f.imageMemory)
	case f.grace <= 0:
		return usageError("--grace is %s; calls in flight need time to end", f.grace)
	}
	if err := f.batch.check(); err != nil {
		return err
	}
	s, err := a.settings()
	if err != nil {
		return err
	}
	f.batch.local(s.pubsubLocal)
	if f.streams == 0 {
		if f.streams = cloudStreams; s.pubsubLocal {
			f.streams = localStreams
		}
	}
	log := newLogger(a.err, level)
	defer log.Sync()
	return a.runWorker(ctx, f, s, log)
}

// runWorker opens the connections, checks them, and works.
func (a *app) runWorker(ctx context.Context, f *workerFlags, s *settings, log *zap.Logger) error {
	id := workerID()
	log = log.With(zap.String("worker", id))
	o, err := a.observe(ctx, f, id, log)
	if err != nil {
		return err
	}
	defer o.end()
	e, err := a.openEngine(ctx, f, s, id, log, o.resent)
	if err != nil {
		return err
	}
	defer e.close()
	if err := errors.Join(e.check(ctx), o.show(e, f)); err != nil {
		return fmt.Errorf("cannot start: %w", err)
	}
	var w *worker.Worker
	w = worker.New(worker.Config{
		ID: id, Version: version, Grace: f.grace, Catalogue: e.catalogue, Log: log, Hurry: a.hurry, Meter: o.Meter(), Tracer: o.Tracer(),
		Beside: e.loops(id, f, func() *worker.Worker { return w }),
	}, worker.Ports{
		Queue: e.queue, Controls: e.controls, Ledger: e.ledger, Lanes: e.lanes, Model: e.model, Assets: e.assets, Lineage: e.lineage, Results: e.queue,
	})
	log.Info("working", zap.Int("concurrency", f.concurrency), zap.String("project", s.project), zap.String("version", version))
	return o.during(ctx, e.ledger.LastBeat, func() error { return runWithStats(ctx, w, a.newReporter(f, e, log)) })
}

// runWithStats works, and reports now and then how it goes.
func runWithStats(ctx context.Context, w *worker.Worker, r reporter) error {
	group, gctx := errgroup.WithContext(context.WithoutCancel(ctx))
	over, finish := context.WithCancel(gctx)
	group.Go(func() error {
		defer finish()
		return w.Run(ctx)
	})
	group.Go(func() error {
		tick := time.NewTicker(r.every)
		defer tick.Stop()
		for {
			select {
			case <-over.Done():
				r.tell(w.Stats(), true)
				return nil
			case <-tick.C:
				r.tell(w.Stats(), false)
			}
		}
	})
	return group.Wait()
}

// workerID is unique among all workers, also after a restart on the same host.
func workerID() string {
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "worker"
	}
	return strings.ToLower(host + "-" + rand.Text()[:8])
}
