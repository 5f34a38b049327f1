package workertest

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/worker"
)

// Times of the ledger in memory, as the real one has them.
const (
	BeatEvery = 5 * time.Second
	DeadAfter = 20 * time.Second
)

// Ledger is the bucket of a ledger in memory, shared by any number of workers, each of which opens it under its own name.
type Ledger struct {
	mu         sync.Mutex
	generation int64
	jobs       map[string]*entry
	beats      map[string]time.Time // of the living; a worker that has left has none
	seals      map[string]worker.Seal
}

type entry struct {
	generation int64
	state      worker.State // Granted: claimed; Done; 0: released
	holder     string
	batch      string // that the job is gathered into
	digest     jobs.Digest
	spent      worker.Spent
	record     worker.Record
}

// NewLedger returns an empty ledger.
func NewLedger() *Ledger {
	return &Ledger{jobs: map[string]*entry{}, beats: map[string]time.Time{}, seals: map[string]worker.Seal{}}
}

// Open returns the ledger as a worker sees it. Operations fail when hook does; the operations are beat, claim, confirm, finish,
// release and leave.
func (l *Ledger) Open(workerID string, hook Hook) *OpenLedger {
	return &OpenLedger{shared: l, worker: workerID, hook: hook, beaten: make(chan struct{})}
}

// OpenLedger implements worker.Ledger. It is safe for concurrent use.
type OpenLedger struct {
	shared *Ledger
	worker string
	hook   Hook

	mu     sync.Mutex
	last   time.Time     // when the last beat succeeded
	series int64         // of beats without a gap in which this worker could be taken for dead
	beaten chan struct{} // closed, and replaced, at each beat
}

// begin asks the hook and takes the lock of the shared state; a nil error means that the caller must unlock it.
func (l *OpenLedger) begin(ctx context.Context, op, jobID string) error {
	if err := l.hook.ask(op, jobID); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	l.shared.mu.Lock()
	return nil
}

// Beat implements worker.Ledger.
func (l *OpenLedger) Beat(ctx context.Context) {
	tick := time.NewTicker(BeatEvery)
	defer tick.Stop()
	for {
		if l.begin(ctx, "beat", "") == nil {
			l.shared.beats[l.worker] = time.Now()
			l.shared.mu.Unlock()
			l.mu.Lock()
			if time.Since(l.last) >= DeadAfter/2 {
				l.series++
			}
			l.last = time.Now()
			close(l.beaten)
			l.beaten = make(chan struct{})
			l.mu.Unlock()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if l.begin(context.WithoutCancel(ctx), "leave", "") == nil {
				delete(l.shared.beats, l.worker)
				l.shared.mu.Unlock()
			}
			return
		}
	}
}

// dead reports whether a worker has left or has given no sign of life for long. The caller holds the lock.
func (l *Ledger) dead(workerID string) bool {
	last, known := l.beats[workerID]
	return !known || time.Since(last) >= DeadAfter
}

// fresh reports whether nobody can take this worker for dead now, the series of its beats, and what is closed at the next.
func (l *OpenLedger) fresh() (bool, int64, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.last.IsZero() && time.Since(l.last) < DeadAfter/2, l.series, l.beaten
}

func (l *OpenLedger) awaitFresh(ctx context.Context) (series int64, err error) {
	for {
		fresh, series, next := l.fresh()
		if fresh {
			return series, nil
		}
		select {
		case <-next:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

// Claim implements worker.Ledger.
func (l *OpenLedger) Claim(ctx context.Context, jobID string, digest jobs.Digest) (worker.Standing, error) {
	return l.ClaimFor(ctx, jobID, digest, "")
}

// ClaimFor is Claim for a batch.
func (l *OpenLedger) ClaimFor(ctx context.Context, jobID string, digest jobs.Digest, batch string) (worker.Standing, error) {
	series, err := l.awaitFresh(ctx)
	if err != nil {
		return worker.Standing{}, err
	}
	if err := l.begin(ctx, "claim", jobID); err != nil {
		return worker.Standing{}, err
	}
	defer l.shared.mu.Unlock()
	e := l.shared.jobs[jobID]
	switch {
	case e == nil:
		e = &entry{digest: digest}
		l.shared.jobs[jobID] = e
	case e.digest != digest:
		return worker.Standing{State: worker.Conflict}, nil
	case e.state == worker.Done:
		return worker.Standing{State: worker.Done, Record: clone(e.record)}, nil
	case e.state == worker.Granted:
		if e.holder == l.worker || !l.shared.dead(e.holder) || !l.shared.void(e.batch) {
			return worker.Standing{State: worker.Busy, Holder: e.holder}, nil
		}
		if e.batch == "" {
			e.spent.Abandoned++
		}
	}
	l.shared.generation++
	e.state, e.holder, e.batch, e.generation = worker.Granted, l.worker, batch, l.shared.generation
	return worker.Standing{
		State:     worker.Granted,
		Ticket:    worker.Ticket{JobID: jobID, Digest: digest, Generation: e.generation, Series: series},
		Spent:     e.spent,
		Abandoned: e.spent.Abandoned > 0,
	}, nil
}

// void voids a batch, and reports false if it is sealed. No batch is always void. The caller holds the lock.
func (l *Ledger) void(batch string) bool {
	if batch == "" {
		return true
	}
	if !l.seals[batch].Sealed {
		l.seals[batch] = worker.Seal{Void: true}
	}
	return l.seals[batch].Void
}

// Seal makes a batch durable, as the real ledger does.
func (l *OpenLedger) Seal(ctx context.Context, batch string, manifest []byte) error {
	if err := l.begin(ctx, "seal", batch); err != nil {
		return err
	}
	defer l.shared.mu.Unlock()
	switch found := l.shared.seals[batch]; {
	case found.Void:
		return worker.ErrVoid
	case !found.Sealed:
		l.shared.seals[batch] = worker.Seal{Sealed: true, Manifest: manifest}
	}
	return nil
}

// ReadSeal returns what is known of a batch's seal.
func (l *OpenLedger) ReadSeal(ctx context.Context, batch string) (worker.Seal, error) {
	if err := l.begin(ctx, "read seal", batch); err != nil {
		return worker.Seal{}, err
	}
	defer l.shared.mu.Unlock()
	return l.shared.seals[batch], nil
}

// VoidIfAbandoned voids a batch whose gatherer is taken for dead, unless it is sealed.
func (l *OpenLedger) VoidIfAbandoned(ctx context.Context, batch, gatherer string) (bool, error) {
	if err := l.begin(ctx, "void", batch); err != nil {
		return false, err
	}
	defer l.shared.mu.Unlock()
	return gatherer != l.worker && l.shared.dead(gatherer) && l.shared.void(batch), nil
}

// Look returns how a job ended, if it has.
func (l *OpenLedger) Look(ctx context.Context, jobID string) (worker.Record, bool, error) {
	if err := l.begin(ctx, "look", jobID); err != nil {
		return worker.Record{}, false, err
	}
	defer l.shared.mu.Unlock()
	if e := l.shared.jobs[jobID]; e != nil && e.state == worker.Done {
		return clone(e.record), true, nil
	}
	return worker.Record{}, false, nil
}

// Confirm implements worker.Ledger.
func (l *OpenLedger) Confirm(ctx context.Context, t worker.Ticket) error {
	if fresh, series, _ := l.fresh(); fresh && series == t.Series {
		return nil
	}
	return l.swap(ctx, "confirm", t, nil)
}

// Finish implements worker.Ledger.
func (l *OpenLedger) Finish(ctx context.Context, t worker.Ticket, r worker.Record) error {
	return l.swap(ctx, "finish", t, func(e *entry) { e.state, e.record = worker.Done, clone(r) })
}

// Release implements worker.Ledger.
func (l *OpenLedger) Release(ctx context.Context, t worker.Ticket, spent worker.Spent) error {
	return l.swap(ctx, "release", t, func(e *entry) { e.state, e.spent = 0, spent })
}

// swap changes the ticket's record, or only looks whether it could when change is nil.
func (l *OpenLedger) swap(ctx context.Context, op string, t worker.Ticket, change func(*entry)) error {
	if err := l.begin(ctx, op, t.JobID); err != nil {
		return err
	}
	defer l.shared.mu.Unlock()
	e := l.shared.jobs[t.JobID]
	if e == nil || e.generation != t.Generation {
		return fmt.Errorf("%s %s: %w", op, t.JobID, worker.ErrFenced)
	}
	if change != nil {
		l.shared.generation++
		e.generation = l.shared.generation
		change(e)
	}
	return nil
}

func clone(r worker.Record) worker.Record {
	c := worker.Record{Generation: proto.CloneOf(r.Generation)}
	for _, a := range r.Attempts {
		c.Attempts = append(c.Attempts, proto.CloneOf(a))
	}
	return c
}
