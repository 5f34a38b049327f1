package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/assetmill/assetmill/internal/blob"
	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/jobs/queue"
	"github.com/assetmill/assetmill/schemas"
	"github.com/assetmill/assetmill/worker"
	"github.com/assetmill/assetmill/worker/assets"
	"github.com/assetmill/assetmill/worker/lanes"
	"github.com/assetmill/assetmill/worker/ledger"
	"github.com/assetmill/assetmill/worker/lineage"
	"github.com/assetmill/assetmill/worker/vertex"
)

// maxLaneChecks bounds the lanes that are asked at a time when a worker starts.
const maxLaneChecks = 8

// engine is the worker's connections to Google Cloud, or to its stand-ins.
type engine struct {
	closer
	catalogue *jobs.Catalogue
	config    *lanes.Config
	// first are the lanes that are asked before the worker starts: all of a file; of the default ones, those of the default model.
	first    []worker.Lane
	queue    *queue.Queue
	controls *ledger.Controls
	ledger   *ledger.Ledger
	lanes    *lanes.Set
	model    *vertex.Online
	budget   *blob.Budget
	assets   *assets.Store
	lineage  *lineage.Lineage
	batching *batching
	project  string
	log      *zap.Logger
}

// openEngine is the one place where a worker is composed.
func (a *app) openEngine(ctx context.Context, f *workerFlags, s *settings, id string, log *zap.Logger, resent func(table string, rows int)) (_ *engine, err error) {
	e := &engine{budget: blob.NewBudget(int64(f.imageMemory) << 20), project: s.project, log: log}
	defer func() {
		if err != nil {
			e.close()
		}
	}()
	if e.catalogue, err = a.catalogue(); err != nil {
		return nil, err
	}
	if err := e.readLanes(s); err != nil {
		return nil, err
	}
	pubsubClient, err := s.pubsubClient(ctx)
	if err != nil {
		return nil, err
	}
	e.add(pubsubClient.Close)
	storageClient, uploader, err := s.workerStorage(ctx)
	if err != nil {
		return nil, err
	}
	e.add(storageClient.Close)
	rows := s.lineageConfig()
	rows.Retrying = func(table string, n int, err error) {
		resent(table, n)
		log.Warn("rows are sent again", zap.String("table", table), zap.Int("rows", n), zap.Error(err))
	}
	if e.lineage, err = lineage.New(ctx, rows); err != nil {
		return nil, err
	}
	e.add(func() error { return closeLineage(e.lineage) })
	e.queue = queue.New(pubsubClient, queue.Config{
		Mode: jobs.Online, MaxMessages: f.concurrency, Streams: f.streams, Log: log,
	})
	e.add(func() error { e.queue.Close(); return nil })
	e.controls = ledger.NewControls(storageClient, s.workBucket)
	e.assets = assets.New(storageClient, assets.Config{
		Bucket: s.bucket, Regions: e.config.Buckets, AnyLocation: s.storageLocal, Uploader: uploader,
	})
	e.lanes = lanes.New(e.config, lanes.Options{Log: log, MaxInFlight: f.concurrency, Storable: e.assets.Storable, Worker: id})
	e.ledger = ledger.New(storageClient, s.workBucket, id, ledger.WriteBy(uploader), ledger.Share(e.lanes))
	if err := e.openModel(ctx, f, s); err != nil {
		return nil, err
	}
	return e, e.openBatching(ctx, f, s, pubsubClient, storageClient)
}

// readLanes reads the file of lanes, if there is one.
func (e *engine) readLanes(s *settings) error {
	if s.lanesFile == "" {
		e.config = lanes.Default(s.project, jobs.GlobalRegion, e.catalogue)
		for _, l := range e.config.Lanes {
			if l.Model == e.catalogue.DefaultModel().ID {
				e.first = append(e.first, l.Lane)
			}
		}
		return nil
	}
	data, err := os.ReadFile(s.lanesFile)
	if err != nil {
		return usageError("ASSETMILL_LANES: %w", err)
	}
	if e.config, err = lanes.Parse(s.lanesFile, data, e.catalogue); err != nil {
		return usageError("ASSETMILL_LANES: %w", err)
	}
	if err := e.config.SetProject(s.project); err != nil {
		return usageError("ASSETMILL_LANES: %s: %w", s.lanesFile, err)
	}
	for _, l := range e.config.Lanes {
		e.first = append(e.first, l.Lane)
	}
	return nil
}

func (e *engine) openModel(ctx context.Context, f *workerFlags, s *settings) (err error) {
	e.model, err = vertex.New(ctx, vertex.Config{
		Lanes: e.lanes.Lanes(), BaseURL: s.vertexREST, EndpointAddr: s.vertexGRPC, NoAuth: s.vertexREST != "", UserAgent: "assetmill/" + version,
		Inline: f.inline, Log: e.log, MaxConns: f.concurrency, Budget: e.budget,
	})
	if err != nil {
		return err
	}
	e.add(func() error { e.model.Close(); return nil })
	return nil
}

// check reports everything that is missing, not only the first.
func (e *engine) check(ctx context.Context) error {
	return errors.Join(
		e.queue.CheckSubscription(ctx),
		e.queue.Check(ctx, schemas.TopicResults, schemas.TopicDead),
		e.ledger.Check(ctx),
		e.assets.Check(ctx),
		e.lineage.Check(ctx, schemas.TableGenerations, schemas.TableAttempts, schemas.TableBatches),
		e.checkLanes(ctx),
		e.batching.check(ctx),
	)
}

// checkLanes asks Vertex, at no cost, whether the worker may use its first lanes, and shuts those that it may not use. Only when none is
// left can the worker not start.
func (e *engine) checkLanes(ctx context.Context) error {
	found := make([]error, len(e.first))
	var group errgroup.Group
	group.SetLimit(maxLaneChecks)
	for i, l := range e.first {
		group.Go(func() error {
			found[i] = e.model.Check(ctx, l)
			return nil
		})
	}
	_ = group.Wait() // what went wrong is in found
	var denied []error
	for i, err := range found {
		var ce *worker.CallError
		switch {
		case err == nil:
		case errors.As(err, &ce) && ce.Kind == worker.Denied:
			denied = append(denied, fmt.Errorf("lane %s: %w", e.first[i].Name, err))
		default:
			return fmt.Errorf("lane %s: %w", e.first[i].Name, err)
		}
	}
	if len(denied) == len(e.first) {
		return errors.Join(denied...)
	}
	for i, err := range found {
		if err != nil {
			e.lanes.Shut(e.first[i].Name, err)
		}
	}
	return nil
}
