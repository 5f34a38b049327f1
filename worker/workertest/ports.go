package workertest

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/assetmill/assetmill/internal/blob"
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

// Assets is a bucket in memory.
type Assets struct {
	Hook Hook

	mu      sync.Mutex
	objects map[string]Object
	written map[string][]byte // what models wrote, by URI
}

// Write puts an object below a job's prefix, as a model does that writes its image itself. It returns the object's URI.
func (a *Assets) Write(j *jobs.Job, content []byte) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.written == nil {
		a.written = map[string][]byte{}
	}
	uri := prefix(j) + "1/image.png"
	a.written[uri] = content
	return uri
}

// Prefix implements worker.Assets.
func (a *Assets) Prefix(j *jobs.Job) string { return prefix(j) }

func prefix(j *jobs.Job) string { return "gs://assets/straight/" + j.ID + "/" }

// Take implements worker.Assets.
func (a *Assets) Take(ctx context.Context, j *jobs.Job, uri string) (worker.Asset, error) {
	a.mu.Lock()
	content, ok := a.written[uri]
	a.mu.Unlock()
	if !ok || !strings.HasPrefix(uri, prefix(j)) {
		return worker.Asset{}, fmt.Errorf("take %s: there is no such object for the job", uri)
	}
	b, err := blob.NewBudget(int64(len(content))).Reserve(ctx, int64(len(content)), int64(len(content)))
	if err != nil {
		return worker.Asset{}, err
	}
	defer b.Release()
	if _, err := b.Write(content); err != nil {
		return worker.Asset{}, err
	}
	asset, err := a.Store(ctx, j, &worker.Image{Blob: b, MimeType: "image/png"})
	if err == nil {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.written, uri)
	}
	return asset, err
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
	name := objectName(j)
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

// Find implements worker.Assets.
func (a *Assets) Find(ctx context.Context, j *jobs.Job) (worker.Asset, bool, error) {
	if err := a.Hook.ask("find", j.ID); err != nil {
		return worker.Asset{}, false, err
	}
	if ctx.Err() != nil {
		return worker.Asset{}, false, context.Cause(ctx)
	}
	a.mu.Lock()
	o, found := a.objects[objectName(j)]
	var left string
	for uri := range a.written {
		if strings.HasPrefix(uri, prefix(j)) {
			left = uri
		}
	}
	a.mu.Unlock()
	if found || left == "" {
		return o.Asset, found, nil
	}
	asset, err := a.Take(ctx, j, left)
	return asset, err == nil, err
}

func objectName(j *jobs.Job) string { return j.Retention + "/" + j.Campaign + "/" + j.ID }

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

// Controls is the owners' wishes in memory.
type Controls struct {
	Hook Hook

	mu     sync.Mutex
	wishes map[string]worker.Control
}

// Set changes what is to become of a submission's jobs.
func (c *Controls) Set(submission string, wish worker.Control) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.wishes == nil {
		c.wishes = map[string]worker.Control{}
	}
	c.wishes[submission] = wish
}

// Control implements worker.Controls.
func (c *Controls) Control(_ context.Context, submission string) (worker.Control, error) {
	if err := c.Hook.ask("control", submission); err != nil {
		return worker.Proceed, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.wishes[submission], nil
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
func (m *Model) Generate(ctx context.Context, c worker.Call) (*worker.Answer, error) {
	j := c.Job
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
