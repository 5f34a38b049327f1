package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/storage"
	"github.com/spf13/cobra"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/jobs/queue"
	"github.com/assetmill/assetmill/worker"
	"github.com/assetmill/assetmill/worker/batch"
	"github.com/assetmill/assetmill/worker/batch/gcsfiles"
	"github.com/assetmill/assetmill/worker/vertex"
)

const (
	// maxHandoffs bounds the batches and ranges that a worker deals with at a time. A range holds some images in memory.
	maxHandoffs = 4
	// With an emulator batches take seconds, and nobody wants to wait minutes for the next step.
	localBatchIdle = 3 * time.Second
	localBatchPoll = time.Second
	// batchStreams read jobs for batches, which need no haste; with an emulator, whose streams are slow, as many as online.
	batchStreams = 2
)

// batchFlags are the part of worker's command line that is about batches.
type batchFlags struct {
	rows      int
	age, idle time.Duration
	poll      time.Duration
	queueTime time.Duration
	spill     string
}

func (f *batchFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.IntVar(&f.rows, "batch-rows", batch.DefaultRows, fmt.Sprintf("jobs in a batch at most, 1 to %d; each holds memory until the batch is sent", batch.HardRows))
	flags.DurationVar(&f.age, "batch-age", batch.DefaultAge, "how long the first job of a batch waits for others")
	flags.DurationVar(&f.idle, "batch-idle", 0, fmt.Sprintf("how long a batch waits for one more job (default %s; %s with an emulator)", batch.DefaultIdle, localBatchIdle))
	flags.DurationVar(&f.poll, "batch-poll", 0, fmt.Sprintf("how often to look at a batch (default %s; %s with an emulator)", batch.DefaultPoll, localBatchPoll))
	flags.DurationVar(&f.queueTime, "batch-queue-time", batch.DefaultQueueTime, "how long a batch may wait in Vertex's queue before its jobs go elsewhere")
	flags.StringVar(&f.spill, "batch-spill", string(batch.ThenOnline), "where the jobs of a batch go that came to nothing: online or batch")
}

func (f *batchFlags) check() error {
	switch {
	case f.rows < 1 || f.rows > batch.HardRows:
		return usageError("--batch-rows is %d; allowed: 1 to %d", f.rows, batch.HardRows)
	case f.age <= 0 || f.idle < 0 || f.poll < 0 || f.queueTime <= 0:
		return usageError("--batch-age and --batch-queue-time must be above 0, --batch-idle and --batch-poll not below")
	case f.spill != string(batch.ThenOnline) && f.spill != string(batch.ThenBatch):
		return usageError("--batch-spill %q; allowed: online, batch", f.spill)
	}
	return nil
}

// local sets what was left open, for an emulator or for Google Cloud.
func (f *batchFlags) local(emulator bool) {
	if emulator && f.idle == 0 {
		f.idle = localBatchIdle
	}
	if emulator && f.poll == 0 {
		f.poll = localBatchPoll
	}
}

// batching is the batch side of a worker.
type batching struct {
	queue    *queue.Queue // of jobs
	handoffs *queue.Queue
	files    *gcsfiles.Files
	vertex   *vertex.Batches
	format   *vertex.BatchFormat
}

// openBatching opens what batches need besides the engine.
func (e *engine) openBatching(ctx context.Context, f *workerFlags, s *settings, pubsubClient *pubsub.Client, storageClient *storage.Client) error {
	b := &batching{format: vertex.NewBatchFormat(e.budget)}
	streams := batchStreams
	if s.pubsubLocal {
		streams = f.streams
	}
	b.queue = queue.New(pubsubClient, queue.Config{Mode: jobs.Batch, MaxMessages: f.batch.rows, Streams: streams, Log: e.log})
	e.add(func() error { b.queue.Close(); return nil })
	b.handoffs = queue.New(pubsubClient, queue.Config{MaxMessages: maxHandoffs, Streams: 1, Log: e.log})
	e.add(func() error { b.handoffs.Close(); return nil })
	b.files = s.batchFiles(storageClient)
	var err error
	b.vertex, err = vertex.NewBatches(ctx, vertex.BatchesConfig{Addr: s.vertexGRPC, NoAuth: s.vertexREST != "", UserAgent: "assetmill/" + version})
	if err != nil {
		return err
	}
	e.add(func() error { b.vertex.Close(); return nil })
	e.batching = b
	return nil
}

// check reports what is missing for batches.
func (b *batching) check(ctx context.Context) error {
	return errors.Join(b.queue.CheckSubscription(ctx), b.handoffs.CheckHandoffs(ctx), b.files.Check(ctx))
}

// loops are the batch side's part of the worker's life. The spine is the worker itself, which is made after them.
func (e *engine) loops(id string, f *workerFlags, spine func() *worker.Worker) []func(receiving, settle context.Context) error {
	b := e.batching
	if b == nil {
		return nil
	}
	gather := func(receiving, _ context.Context) error {
		g := batch.NewGatherer(batch.GatherConfig{
			Worker: id, Rows: f.batch.rows, Age: f.batch.age, Idle: f.batch.idle, Lane: e.batchLane, Log: e.log,
		}, spine(), e.ledger, b.files, b.queue, b.format)
		return g.Run(receiving, b.queue.Receive)
	}
	run := func(receiving, settle context.Context) error {
		r := batch.NewRunner(batch.RunConfig{
			Worker: id, Version: version, Catalogue: e.catalogue, Poll: f.batch.poll, QueueTime: f.batch.queueTime, Spill: batch.Then(f.batch.spill), Log: e.log,
		}, batch.Ports{
			Spine: spine(), Ledger: e.ledger, Vertex: b.vertex, Format: b.format, Files: b.files, Queue: b.queue, Lineage: e.lineage,
		})
		return b.handoffs.ReceiveHandoffs(receiving, within(settle, r.Handle))
	}
	return []func(receiving, settle context.Context) error{gather, run}
}

// within ends what a handler does when settle ends.
func within(settle context.Context, handle func(context.Context, *jobs.Delivery) jobs.Verdict) func(context.Context, *jobs.Delivery) jobs.Verdict {
	return func(ctx context.Context, d *jobs.Delivery) jobs.Verdict {
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		defer context.AfterFunc(settle, func() { cancel(context.Cause(settle)) })()
		return handle(ctx, d)
	}
}

// batchLane returns the lane of batches of a model and data region: the file's, or the model's own.
func (e *engine) batchLane(model, region string) (worker.Lane, error) {
	for _, l := range e.config.Batch {
		if l.Model == model && (region == jobs.GlobalRegion || l.Location == region) {
			return l.Lane, nil
		}
	}
	m := e.catalogue.Model(model)
	if len(e.config.Batch) > 0 || m == nil || !m.HasTier(jobs.TierBatch) {
		return worker.Lane{}, fmt.Errorf("%w: no batch lane of this worker serves model %s in region %s", worker.ErrNoLane, model, region)
	}
	for _, location := range m.Locations {
		if location == region {
			return worker.Lane{
				Name: model + "/" + location + "/" + jobs.TierBatch, Project: e.project, Location: location, Model: model, Tier: jobs.TierBatch,
			}, nil
		}
	}
	return worker.Lane{}, fmt.Errorf("%w: model %s has no batches in region %s", worker.ErrNoLane, model, region)
}
