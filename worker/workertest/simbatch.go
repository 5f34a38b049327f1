package workertest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/assetmill/assetmill/internal/retry"
	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
	"github.com/assetmill/assetmill/worker"
	"github.com/assetmill/assetmill/worker/batch"
)

// How the simulated workers serve batches.
const (
	// batchQueueTime is after how long in Vertex's queue a batch is given up.
	batchQueueTime = 2 * time.Hour
	// rangeBytes is small, as the lines are: a batch of 1,000 rows has three ranges.
	rangeBytes = 8 << 10
	// manyJobs is how many jobs a day has at least whose batches fill within the usual times.
	manyJobs = 100_000
	// runPlaces is how many hand-offs a process handles at a time.
	runPlaces = 4
	// fewestRows and mostRows bound the rows of a batch, by the size of the day. Each is a goroutine until the batch is sealed.
	fewestRows, mostRows = 40, 1000
)

func (cfg Config) batchRows() int { return min(max(cfg.Jobs/1200, fewestRows), mostRows) }

// batches is what the services hold of batches. sim.mu guards it.
type batches struct {
	all        []*simBatch // by number; the first is none
	byID       map[string]int32
	handoffs   []handoff             // by number
	generation int64                 // of files
	vertex     map[string]*vertexJob // by name
}

// handoff is a message of a batch, or of a range of its output.
type handoff struct {
	batch    *simBatch
	gatherer string
	span     int32
}

// simBatch is one batch as the services and the checkers know it.
type simBatch struct {
	id     string
	number int32
	key    int // under which the ledger has the claim on the batch itself
	files  map[string]*file
	seal   worker.Seal
	rows   []int32 // jobs, once it is sealed
	vertex []*vertexJob
	handed bool // whether its hand-off was published
	phase  batch.Phase
	reason string
	wish   batch.Then // of its owner
	ended  map[jobs.Outcome]int
	freed  int // jobs that were given back
	lines  int // of the output
	books  bool
}

// batch returns the batch of that id.
func (s *sim) batch(id string) *simBatch {
	key := s.number(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	all := &s.batches
	if n, ok := all.byID[id]; ok {
		return all.all[n]
	}
	b := &simBatch{
		id: id, number: int32(len(all.all)), key: key, files: map[string]*file{}, phase: batch.Gathered, ended: map[jobs.Outcome]int{},
	}
	all.byID[id] = b.number
	all.all = append(all.all, b)
	return b
}

// byNumber returns a batch; nil for none. The caller holds sim.mu.
func (a *batches) byNumber(n int32) *simBatch {
	if n == 0 {
		return nil
	}
	return a.all[n]
}

// sealed reports whether a batch is sealed. The caller holds sim.mu.
func (a *batches) sealed(n int32) bool { return n != 0 && a.all[n].seal.Sealed }

// ofSealed reports whether a job is claimed for a sealed batch.
func (s *sim) ofSealed(id string) bool {
	n := s.number(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &s.bucket.records[n]
	return r.state == claimed && s.batches.sealed(r.batch)
}

const aBatch = 1 << 43

// aboutBatch says that a request is about a batch.
func aboutBatch(b *simBatch) uint64 { return aBatch | uint64(b.number) }

// handoffData is the body of a hand-off. The caller holds mu.
func (s *sim) handoffData(n int) []byte {
	h := s.batches.handoffs[n]
	data, err := schemas.Marshal(&schemas.BatchHandoff{BatchId: h.batch.id, Gatherer: h.gatherer, Range: h.span})
	if err != nil {
		panic(err) // three plain fields
	}
	return data
}

// serveBatches returns the loops of a process that gather and run batches, as cmd/assetmill composes them.
func (p *process) serveBatches(w func() *worker.Worker, ledger watched, log *zap.Logger) []func(receiving, settle context.Context) error {
	s := p.sim
	if s.cfg.Batch == 0 {
		return nil
	}
	ports := batch.Ports{
		Ledger: ledger, Vertex: vertexPort{p}, Format: format{p}, Files: files{p}, Queue: batchQueue{p}, Lineage: rows{p},
	}
	gather := func(receiving, _ context.Context) error {
		cfg := batch.GatherConfig{Worker: p.name, Rows: s.cfg.batchRows(), Lane: s.batchLane, Log: log}
		if s.cfg.Jobs < manyJobs {
			cfg.Age, cfg.Idle = 14*time.Minute, 8*time.Minute
		}
		g := batch.NewGatherer(cfg, w(), ledger, ports.Files, ports.Queue, ports.Format)
		return g.Run(receiving, subscriber{p, batchJobs, s.cfg.batchRows()}.Receive)
	}
	run := func(receiving, settle context.Context) error {
		ports.Spine = w()
		cfg := batch.RunConfig{Worker: p.name, Version: "simulated", Catalogue: s.catalogue, QueueTime: batchQueueTime, RangeBytes: rangeBytes, Log: log}
		r := batch.NewRunner(cfg, ports)
		return subscriber{p, handoffs, runPlaces}.Receive(receiving, func(ctx context.Context, d *jobs.Delivery) jobs.Verdict {
			ctx, cancel := context.WithCancelCause(ctx)
			defer cancel(nil)
			defer context.AfterFunc(settle, func() { cancel(context.Cause(settle)) })()
			return r.Handle(ctx, d)
		})
	}
	return []func(receiving, settle context.Context) error{gather, run}
}

// batchLane returns the lane that serves batches of a model and data region.
func (s *sim) batchLane(model, region string) (worker.Lane, error) {
	for _, l := range s.lanes.Batch {
		if l.Model == model && (l.Location == region || s.cfg.sabotage == roamingBatches) {
			return l.Lane, nil
		}
	}
	return worker.Lane{}, fmt.Errorf("%w: batches of %s in %s", worker.ErrNoLane, model, region)
}

// ---- the ledger's part in batches, step by step as the real one has it

// ClaimFor implements batch.Ledger.
func (l *ledgerPort) ClaimFor(ctx context.Context, jobID string, digest jobs.Digest, batch string) (worker.Standing, error) {
	return l.claimAs(ctx, jobID, digest, l.p.sim.batch(batch).number)
}

// Seal implements batch.Ledger.
func (l *ledgerPort) Seal(ctx context.Context, batch string, manifest []byte) error {
	b := l.p.sim.batch(batch)
	if l.p.sim.cfg.sabotage == hastySeal && l.p.sim.pick(int(b.number)) {
		return nil
	}
	return l.createSeal(ctx, b, worker.Seal{Sealed: true, Manifest: manifest}, func(found worker.Seal) error {
		if found.Void {
			return worker.ErrVoid
		}
		return nil
	})
}

// createSeal creates a batch's seal, or asks what to make of the one that is there.
func (l *ledgerPort) createSeal(ctx context.Context, b *simBatch, seal worker.Seal, there func(worker.Seal) error) error {
	s := l.p.sim
	return retry.Do(ctx, transient, func(ctx context.Context) error {
		err := l.p.request(ctx, svcLedger, aboutBatch(b), func() error {
			s.mu.Lock()
			defer s.mu.Unlock()
			if (b.seal.Sealed || b.seal.Void) && !(s.cfg.sabotage == unfencedSeal && seal.Sealed) {
				return errPrecond
			}
			b.seal = seal
			s.audit.sealMade(l.p, b)
			return nil
		})
		if err != errPrecond {
			return err
		}
		found, err := l.readSeal(ctx, b)
		if err != nil {
			return err
		}
		return there(found)
	})
}

// ReadSeal implements batch.Ledger.
func (l *ledgerPort) ReadSeal(ctx context.Context, batch string) (found worker.Seal, err error) {
	b := l.p.sim.batch(batch)
	err = retry.Do(ctx, transient, func(ctx context.Context) error {
		found, err = l.readSeal(ctx, b)
		return err
	})
	return found, err
}

func (l *ledgerPort) readSeal(ctx context.Context, b *simBatch) (found worker.Seal, err error) {
	s := l.p.sim
	err = l.p.request(ctx, svcLedger, aboutBatch(b), func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		found = b.seal
		return nil
	})
	return found, err
}

// VoidIfAbandoned implements batch.Ledger.
func (l *ledgerPort) VoidIfAbandoned(ctx context.Context, batch, gatherer string) (isVoid bool, err error) {
	s := l.p.sim
	b, by := s.batch(batch), s.processNamed(gatherer)
	if by == nil {
		return false, errors.New("no such worker: " + gatherer)
	}
	err = retry.Do(ctx, transient, func(ctx context.Context) error {
		gone, err := l.gone(ctx, b.key, by.id)
		if err != nil || !gone {
			return err
		}
		isVoid, err = l.void(ctx, b.number)
		return err
	})
	return isVoid, err
}

// void voids a batch, and reports false if it is sealed.
func (l *ledgerPort) void(ctx context.Context, number int32) (bool, error) {
	l.p.sim.mu.Lock()
	b := l.p.sim.batches.byNumber(number)
	l.p.sim.mu.Unlock()
	sealed := false
	err := l.createSeal(ctx, b, worker.Seal{Void: true}, func(found worker.Seal) error {
		sealed = found.Sealed
		return nil
	})
	return err == nil && !sealed, err
}

// Look implements batch.Ledger.
func (l *ledgerPort) Look(ctx context.Context, jobID string) (end worker.Record, ended bool, err error) {
	n := l.p.sim.number(jobID)
	err = retry.Do(ctx, transient, func(ctx context.Context) error {
		found, err := l.read(ctx, n)
		if err != nil || found.state != done {
			return err
		}
		end, err = decodeEnd(found.end)
		ended = err == nil
		return err
	})
	return end, ended, err
}

// ---- topics and lineage

// batchQueue is the topics of jobs and of hand-offs as one process sees them.
type batchQueue struct{ *process }

// PublishAgain implements batch.Queue.
func (p batchQueue) PublishAgain(ctx context.Context, j *jobs.Job) error {
	n := p.sim.number(j.ID)
	if p.sim.cfg.sabotage == lostRepublish && p.sim.pick(n) {
		return nil
	}
	return p.publish(ctx, aboutJob(n), func() {
		p.sim.audit.republished(p.process, n, j)
		p.sim.queue.accept(valid, topicOf(j.Mode), n)
	})
}

// PublishHandoff implements batch.Queue.
func (p batchQueue) PublishHandoff(ctx context.Context, h *schemas.BatchHandoff) error {
	s, b, gatherer, span := p.sim, p.sim.batch(h.GetBatchId()), strings.Clone(h.GetGatherer()), h.GetRange()
	accept := func() {
		all := &s.batches.handoffs
		*all = append(*all, handoff{b, gatherer, span})
		b.handed = b.handed || span == 0
		s.queue.accept(valid, handoffs, len(*all)-1)
	}
	if s.cfg.sabotage == lateHandoffs {
		time.AfterFunc(time.Minute, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			accept()
		})
		return nil
	}
	return p.publish(ctx, aboutBatch(b), accept)
}

// publish has a topic accept a message.
func (p batchQueue) publish(ctx context.Context, about uint64, effect func()) error {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	return retry.Do(ctx, transient, func(ctx context.Context) error {
		return p.request(ctx, svcQueue, about, func() error {
			p.sim.mu.Lock()
			defer p.sim.mu.Unlock()
			effect()
			return nil
		})
	})
}

// AppendBatch implements batch.Lineage.
func (p rows) AppendBatch(ctx context.Context, row *schemas.BatchRow) error {
	b := p.sim.batch(row.GetBatchId())
	return p.append(ctx, aboutBatch(b), func() { p.sim.audit.batchRow(b, row) })
}
