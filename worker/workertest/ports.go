package workertest

import (
	"context"
	"fmt"
	"io"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
	"github.com/assetmill/assetmill/worker"
)

// Hook is asked before an operation takes effect, with the operation's name and the job's id.
type Hook func(op, jobID string) error

func (h Hook) ask(op, jobID string) error {
	if h == nil {
		return nil
	}
	return h(op, jobID)
}

// Ledger is a worker.Ledger in memory, shared by any number of workers.
type Ledger struct {
	Hook Hook

	mu         sync.Mutex
	generation int64
	jobs       map[string]*entry
}

type entry struct {
	generation int64
	state      worker.State // Granted: claimed; Done; 0: released
	digest     jobs.Digest
	spent      worker.Spent
	record     worker.Record
}

// NewLedger returns an empty ledger.
func NewLedger() *Ledger { return &Ledger{jobs: map[string]*entry{}} }

// Claim implements worker.Ledger.
func (l *Ledger) Claim(ctx context.Context, jobID string, digest jobs.Digest) (worker.Standing, error) {
	if err := l.Hook.ask("claim", jobID); err != nil {
		return worker.Standing{}, err
	}
	if ctx.Err() != nil {
		return worker.Standing{}, context.Cause(ctx)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.jobs[jobID]
	switch {
	case e == nil:
		e = &entry{digest: digest}
		l.jobs[jobID] = e
	case e.digest != digest:
		return worker.Standing{State: worker.Conflict}, nil
	case e.state == worker.Done:
		return worker.Standing{State: worker.Done, Record: clone(e.record)}, nil
	case e.state == worker.Granted:
		return worker.Standing{State: worker.Busy, Holder: "another worker"}, nil
	}
	l.generation++
	e.state, e.generation = worker.Granted, l.generation
	return worker.Standing{
		State:  worker.Granted,
		Ticket: worker.Ticket{JobID: jobID, Digest: digest, Generation: e.generation},
		Spent:  e.spent,
	}, nil
}

// Finish implements worker.Ledger.
func (l *Ledger) Finish(ctx context.Context, t worker.Ticket, r worker.Record) error {
	return l.swap(ctx, "finish", t, func(e *entry) { e.state, e.record = worker.Done, clone(r) })
}

// Release implements worker.Ledger.
func (l *Ledger) Release(ctx context.Context, t worker.Ticket, spent worker.Spent) error {
	return l.swap(ctx, "release", t, func(e *entry) { e.state, e.spent = 0, spent })
}

func (l *Ledger) swap(ctx context.Context, op string, t worker.Ticket, change func(*entry)) error {
	if err := l.Hook.ask(op, t.JobID); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.jobs[t.JobID]
	if e == nil || e.generation != t.Generation {
		return fmt.Errorf("%s %s: %w", op, t.JobID, worker.ErrFenced)
	}
	l.generation++
	e.generation = l.generation
	change(e)
	return nil
}

func clone(r worker.Record) worker.Record {
	c := worker.Record{Generation: proto.CloneOf(r.Generation)}
	for _, a := range r.Attempts {
		c.Attempts = append(c.Attempts, proto.CloneOf(a))
	}
	return c
}

// Assets is a bucket in memory.
type Assets struct {
	Hook Hook

	mu      sync.Mutex
	objects map[string]Object
}

// Object is a stored image.
type Object struct {
	worker.Asset
	Content []byte
}

// NewAssets returns an empty bucket.
func NewAssets() *Assets { return &Assets{objects: map[string]Object{}} }

// Store implements worker.Assets.
func (a *Assets) Store(ctx context.Context, j *jobs.Job, image *worker.Image) (worker.Asset, error) {
	if err := a.Hook.ask("store", j.ID); err != nil {
		return worker.Asset{}, err
	}
	if ctx.Err() != nil {
		return worker.Asset{}, context.Cause(ctx)
	}
	content, err := io.ReadAll(image.Blob.NewReader())
	if err != nil {
		return worker.Asset{}, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	name := j.Retention + "/" + j.Campaign + "/" + j.ID
	if o, ok := a.objects[name]; ok {
		o.Existing = o.CRC32C != image.Blob.CRC32C()
		return o.Asset, nil
	}
	o := Object{worker.Asset{
		URI: "gs://assets/" + name, Generation: int64(len(a.objects) + 1), Bytes: int64(len(content)),
		CRC32C: image.Blob.CRC32C(), MimeType: image.MimeType, Width: image.Width, Height: image.Height,
	}, content}
	a.objects[name] = o
	return o.Asset, nil
}

// Objects returns what is stored, by name.
func (a *Assets) Objects() map[string]Object {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := make(map[string]Object, len(a.objects))
	for k, v := range a.objects {
		all[k] = v
	}
	return all
}

// Lineage is the tables in memory. Rows are kept as often as they are appended.
type Lineage struct {
	Hook Hook

	mu          sync.Mutex
	generations []*schemas.GenerationRow
	attempts    []*schemas.AttemptRow
}

// AppendGeneration implements worker.Lineage.
func (l *Lineage) AppendGeneration(ctx context.Context, row *schemas.GenerationRow) error {
	if err := l.Hook.ask("generation", row.GetJobId()); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.generations = append(l.generations, proto.CloneOf(row))
	return nil
}

// AppendAttempt implements worker.Lineage.
func (l *Lineage) AppendAttempt(ctx context.Context, row *schemas.AttemptRow) error {
	if err := l.Hook.ask("attempt", row.GetJobId()); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.attempts = append(l.attempts, proto.CloneOf(row))
	return nil
}

// Generations returns the rows in the order in which they were appended.
func (l *Lineage) Generations() []*schemas.GenerationRow {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]*schemas.GenerationRow(nil), l.generations...)
}

// Attempts returns the rows in the order in which they were appended.
func (l *Lineage) Attempts() []*schemas.AttemptRow {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]*schemas.AttemptRow(nil), l.attempts...)
}

// Results is the topic of results in memory.
type Results struct {
	Hook Hook

	mu     sync.Mutex
	events []*schemas.JobResult
}

// Publish implements worker.Results.
func (r *Results) Publish(ctx context.Context, e *schemas.JobResult) error {
	if err := r.Hook.ask("result", e.GetJobId()); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, proto.CloneOf(e))
	return nil
}

// Events returns what was announced, in order.
func (r *Results) Events() []*schemas.JobResult {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]*schemas.JobResult(nil), r.events...)
}

// Model is a worker.Model that answers as a function says, and counts.
type Model struct {
	// Answer makes the answer to the n-th call for a job, from 1.
	Answer func(ctx context.Context, j *jobs.Job, n int) (*worker.Answer, error)

	mu    sync.Mutex
	calls map[string]int
}

// Generate implements worker.Model.
func (m *Model) Generate(ctx context.Context, j *jobs.Job) (*worker.Answer, error) {
	m.mu.Lock()
	if m.calls == nil {
		m.calls = map[string]int{}
	}
	m.calls[j.ID]++
	n := m.calls[j.ID]
	m.mu.Unlock()
	return m.Answer(ctx, j, n)
}

// Calls returns the number of calls for a job.
func (m *Model) Calls(jobID string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.calls[jobID]
}
