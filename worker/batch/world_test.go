package batch_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/assetmill/assetmill/internal/blob"
	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
	"github.com/assetmill/assetmill/worker"
	"github.com/assetmill/assetmill/worker/batch"
	"github.com/assetmill/assetmill/worker/batch/batchtest"
	"github.com/assetmill/assetmill/worker/workertest"
)

// world is everything that workers share, in memory.
type world struct {
	t        *testing.T
	ledger   *workertest.Ledger
	assets   *workertest.Assets
	controls *workertest.Controls
	lineage  *workertest.Lineage
	batches  *batchtest.Lineage
	results  *workertest.Results
	files    *batchtest.Files
	vertex   *batchtest.Vertex
	queue    *batchtest.Queue
	budget   *blob.Budget
	online   *workertest.Model

	refuseBatches bool // whether lineage takes no row of a batch
	// backoff is the longest pause between deliveries of a message, each pause being twice as long as the one before, as subscriptions do it.
	// 0: messages come again as soon as they may.
	backoff    time.Duration
	deliveries sync.Map // of messages: *atomic.Int64
	log        *zap.Logger

	gather batch.GatherConfig // of workers that are started
	run    batch.RunConfig
}

const (
	budgetBytes = 64 << 10
	// leaseTime is how long a killed worker's messages stay out of reach.
	leaseTime = 20 * time.Second
)

var lane = worker.Lane{Name: "batch", Tier: jobs.TierBatch, Location: "global", Model: "gemini-3-pro-image"}

// inWorld runs a test in a world of its own, in virtual time.
func inWorld(t *testing.T, test func(t *testing.T, w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		test(t, w)
	})
}

func newWorld(t *testing.T) *world {
	w := &world{
		t: t, ledger: workertest.NewLedger(), assets: workertest.NewAssets(), controls: &workertest.Controls{}, lineage: &workertest.Lineage{},
		batches: &batchtest.Lineage{}, results: &workertest.Results{}, files: &batchtest.Files{}, queue: batchtest.NewQueue(),
		budget: blob.NewBudget(budgetBytes), log: zap.NewNop(),
	}
	w.vertex = &batchtest.Vertex{Files: w.files}
	w.online = &workertest.Model{Answer: func(ctx context.Context, j *jobs.Job, n int) (*worker.Answer, error) {
		return w.image(ctx, fmt.Sprintf("%s #online for %s %d", j.Prompt, j.ID, n))
	}}
	w.gather = batch.GatherConfig{Age: time.Minute, Idle: 20 * time.Second, Lane: func(string, string) (worker.Lane, error) { return lane, nil }}
	w.run = batch.RunConfig{Catalogue: jobs.DefaultCatalogue(), Version: "test", Poll: 10 * time.Second}
	return w
}

func (w *world) image(ctx context.Context, content string) (*worker.Answer, error) {
	b, err := w.budget.Reserve(ctx, int64(len(content)), int64(len(content)))
	if err != nil {
		return nil, &worker.CallError{Kind: worker.Interrupted, Err: err}
	}
	if _, err := b.Write([]byte(content)); err != nil {
		w.t.Error(err)
	}
	return &worker.Answer{Reason: jobs.ReasonImage, Image: &worker.Image{Blob: b, MimeType: "image/png"}, Usage: jobs.Usage{Prompt: 10, Image: 1120, Total: 1130}}, nil
}

// publish publishes a batch job. more is the rest of its JSON object.
func (w *world) publish(id, prompt, more string) {
	w.queue.Batch.Publish(fmt.Appendf(nil, `{"id":%q,"prompt":%q,"mode":"batch"%s}`, id, prompt, more), map[string]string{schemas.AttributeMode: "batch"})
}

// publishMany publishes jobs with ids and prompts of their own.
func (w *world) publishMany(n int) {
	for i := range n {
		w.publish(fmt.Sprintf("job-%d", i), fmt.Sprintf("prompt %d.", i), "")
	}
}

// process is one worker: it gathers, runs batches and serves online jobs, until it is stopped or killed.
type process struct {
	*world
	id     string
	ledger ledgerPort
	ctx    context.Context
	stop   context.CancelFunc
	dead   atomic.Bool
	calls  atomic.Int64
	thawed atomic.Pointer[chan struct{}] // of a frozen worker: closed when it goes on
	// fault, if set, is asked before each call of a port, with its number from 1.
	fault func(op, subject string, n int) fault
	over  sync.WaitGroup

	// spineOf, if set, is what runs batches in place of the spine.
	spineOf func(batch.Spine) batch.Spine
	// purge, if set, says which messages of hand-offs somebody purges.
	purge func(*jobs.Delivery) bool

	spine    *worker.Worker
	gatherer *batch.Gatherer
	runner   *batch.Runner
}

// fault is what goes wrong with a call of a port.
type fault int

const (
	fine fault = iota
	killBefore
	killAfter // the worker is killed when the call has had its effect
	failBefore
	failAfter    // the answer is lost
	freezeBefore // the worker stands still, signs of life and all, until thaw
)

var (
	errKilled = errors.New("the worker is dead")
	errFault  = errors.New("the service is down")
)

// open prepares a worker that does nothing by itself.
func (w *world) open(id string, fault func(op, subject string, n int) fault) *process {
	p := &process{world: w, id: id, fault: fault}
	p.ctx, p.stop = context.WithCancel(w.t.Context())
	p.ledger = ledgerPort{p, w.ledger.Open(id, func(op, _ string) error {
		p.stand()
		if p.dead.Load() {
			return errKilled
		}
		return nil
	})}
	p.spine = worker.New(worker.Config{ID: id, Version: "test", Catalogue: w.run.Catalogue, Log: w.log}, worker.Ports{
		Queue: receiver{p, w.queue.Online}, Controls: controlsPort{p}, Ledger: p.ledger, Lanes: &workertest.Lanes{Lane: worker.Lane{Name: "online", Tier: "standard"}},
		Model: w.online, Assets: assetsPort{p}, Lineage: lineagePort{p}, Results: resultsPort{p},
	})
	p.gatherer = p.newGatherer(p.spine)
	p.runner = p.newRunner(vertexPort{p})
	return p
}

func (p *process) newRunner(v batch.Vertex) *batch.Runner {
	r := p.run
	r.Worker, r.Log = p.id, p.log
	spine := batch.Spine(p.spine)
	if p.spineOf != nil {
		spine = p.spineOf(spine)
	}
	return batch.NewRunner(r, batch.Ports{
		Spine: spine, Ledger: p.ledger, Vertex: v, Format: p.format(), Files: filesPort{p}, Queue: queuePort{p}, Lineage: lineagePort{p},
	})
}

func (p *process) format() batch.Format { return &batchtest.Format{Budget: p.budget} }

func (p *process) newGatherer(spine batch.Spine) *batch.Gatherer {
	g := p.gather
	g.Worker, g.Log = p.id, p.log
	return batch.NewGatherer(g, spine, p.ledger, filesPort{p}, queuePort{p}, p.format())
}

// start starts a worker.
func (w *world) start(id string, fault func(op, subject string, n int) fault) *process {
	p := w.open(id, fault)
	p.begin()
	return p
}

func (p *process) begin() {
	p.t.Cleanup(func() { // of a test that fails on its way
		p.kill()
		p.thaw()
		p.over.Wait()
	})
	beating, rest := context.WithCancel(context.WithoutCancel(p.ctx))
	var beat sync.WaitGroup
	beat.Go(func() { p.ledger.OpenLedger.Beat(beating) })
	p.over.Go(func() {
		var parts sync.WaitGroup
		parts.Go(func() { p.report(p.spine.Run(p.ctx)) })
		parts.Go(func() { p.report(p.gatherer.Run(p.ctx, receiver{p, p.queue.Batch}.Receive)) })
		parts.Go(func() { p.report(receiver{p, p.queue.Handoffs}.Receive(p.ctx, p.runner.Handle)) })
		parts.Wait()
		rest()
		beat.Wait()
	})
}

func (p *process) report(err error) {
	if err != nil && !p.dead.Load() {
		p.t.Errorf("%s: %v", p.id, err)
	}
}

// halt stops a worker in order.
func (p *process) halt() {
	p.stop()
	p.over.Wait()
}

// kill ends all effects of a worker at once.
func (p *process) kill() {
	p.dead.Store(true)
	p.stop()
}

// freeze makes a worker stand still at its next call.
func (p *process) freeze() {
	gate := make(chan struct{})
	p.thawed.Store(&gate)
}

// isFrozen reports whether a worker was frozen and has not gone on.
func (p *process) isFrozen() bool { return p.thawed.Load() != nil }

// thaw lets a frozen worker go on.
func (p *process) thaw() {
	if gate := p.thawed.Swap(nil); gate != nil {
		close(*gate)
	}
}

func (p *process) stand() {
	if gate := p.thawed.Load(); gate != nil {
		<-*gate
	}
}

// call makes one call of a port.
func call[T any](p *process, op, subject string, do func() (T, error)) (result T, err error) {
	if p.dead.Load() {
		return result, errKilled
	}
	what := fine
	if p.fault != nil {
		what = p.fault(op, subject, int(p.calls.Add(1)))
	}
	switch what {
	case killBefore:
		p.kill()
		return result, errKilled
	case failBefore:
		return result, fmt.Errorf("%s %s: %w", op, subject, errFault)
	case freezeBefore:
		p.freeze()
	}
	p.stand()
	answer, err := do()
	switch {
	case what == killAfter:
		p.kill()
		return result, errKilled
	case p.dead.Load():
		return result, errKilled
	case what == failAfter && err == nil:
		return result, fmt.Errorf("%s %s: %w", op, subject, errFault)
	}
	return answer, err
}

func act(p *process, op, subject string, do func() error) error {
	_, err := call(p, op, subject, func() (struct{}, error) { return struct{}{}, do() })
	return err
}

// receiver delivers a subscription's messages to a worker, as long as it lives.
type receiver struct {
	p     *process
	queue *workertest.Queue
}

func (r receiver) Receive(ctx context.Context, handle func(context.Context, *jobs.Delivery) jobs.Verdict) error {
	return r.queue.Receive(ctx, func(ctx context.Context, d *jobs.Delivery) jobs.Verdict {
		if r.p.purge != nil && r.p.purge(d) {
			return jobs.Verdict{Action: jobs.Ack}
		}
		v, kept := r.leased(ctx, d, handle)
		if r.p.dead.Load() {
			time.Sleep(leaseTime)
			kept = false
		}
		if !kept {
			return jobs.Verdict{Action: jobs.Retry}
		}
		if v.Action == jobs.Retry && r.p.backoff > 0 {
			count, _ := r.p.deliveries.LoadOrStore(d, &atomic.Int64{})
			v.After = max(v.After, min(r.p.backoff, time.Second<<min(20, count.(*atomic.Int64).Add(1))))
		}
		if r.p.fault != nil && v.Action == jobs.Ack && r.p.fault("ack", d.ID, 0) != fine {
			return jobs.Verdict{Action: jobs.Retry} // the acknowledgement is lost
		}
		return v
	})
}

// leased handles a message as long as the worker's lease lasts, which a frozen one does not renew.
func (r receiver) leased(ctx context.Context, d *jobs.Delivery, handle func(context.Context, *jobs.Delivery) jobs.Verdict) (v jobs.Verdict, kept bool) {
	if r.p.dead.Load() || r.p.isFrozen() {
		time.Sleep(leaseTime)
		return v, false
	}
	done := make(chan jobs.Verdict, 1)
	r.p.over.Go(func() { done <- handle(ctx, d) })
	for {
		select {
		case v = <-done:
			return v, true
		case <-time.After(leaseTime):
			if r.p.dead.Load() || r.p.isFrozen() {
				return v, false
			}
		}
	}
}

type ledgerPort struct {
	p *process
	*workertest.OpenLedger
}

func (l ledgerPort) Claim(ctx context.Context, id string, digest jobs.Digest) (worker.Standing, error) {
	return call(l.p, "claim", id, func() (worker.Standing, error) { return l.OpenLedger.Claim(ctx, id, digest) })
}

func (l ledgerPort) ClaimFor(ctx context.Context, id string, digest jobs.Digest, batch string) (worker.Standing, error) {
	return call(l.p, "claim for", id, func() (worker.Standing, error) { return l.OpenLedger.ClaimFor(ctx, id, digest, batch) })
}

func (l ledgerPort) Confirm(ctx context.Context, t worker.Ticket) error {
	return act(l.p, "confirm", t.JobID, func() error { return l.OpenLedger.Confirm(ctx, t) })
}

func (l ledgerPort) Finish(ctx context.Context, t worker.Ticket, r worker.Record) error {
	return act(l.p, "finish", t.JobID, func() error { return l.OpenLedger.Finish(ctx, t, r) })
}

func (l ledgerPort) Release(ctx context.Context, t worker.Ticket, spent worker.Spent) error {
	return act(l.p, "release", t.JobID, func() error { return l.OpenLedger.Release(ctx, t, spent) })
}

func (l ledgerPort) Look(ctx context.Context, id string) (end worker.Record, ended bool, err error) {
	end, err = call(l.p, "look", id, func() (worker.Record, error) {
		var r worker.Record
		r, ended, err = l.OpenLedger.Look(ctx, id)
		return r, err
	})
	return end, ended, err
}

func (l ledgerPort) Seal(ctx context.Context, batch string, manifest []byte) error {
	return act(l.p, "seal", batch, func() error { return l.OpenLedger.Seal(ctx, batch, manifest) })
}

func (l ledgerPort) ReadSeal(ctx context.Context, batch string) (worker.Seal, error) {
	return call(l.p, "read seal", batch, func() (worker.Seal, error) { return l.OpenLedger.ReadSeal(ctx, batch) })
}

func (l ledgerPort) VoidIfAbandoned(ctx context.Context, batch, gatherer string) (bool, error) {
	return call(l.p, "void", batch, func() (bool, error) { return l.OpenLedger.VoidIfAbandoned(ctx, batch, gatherer) })
}

// Beat leaves the signs of life to the process, which outlives the spine.
func (l ledgerPort) Beat(ctx context.Context) { <-ctx.Done() }

type controlsPort struct{ p *process }

func (c controlsPort) Control(ctx context.Context, submission string) (worker.Control, error) {
	return call(c.p, "control", submission, func() (worker.Control, error) { return c.p.controls.Control(ctx, submission) })
}

type assetsPort struct{ p *process }

func (a assetsPort) Store(ctx context.Context, j *jobs.Job, i *worker.Image) (worker.Asset, error) {
	return call(a.p, "store", j.ID, func() (worker.Asset, error) { return a.p.assets.Store(ctx, j, i) })
}

func (a assetsPort) Take(ctx context.Context, j *jobs.Job, uri string) (worker.Asset, error) {
	return call(a.p, "take", j.ID, func() (worker.Asset, error) { return a.p.assets.Take(ctx, j, uri) })
}

func (a assetsPort) Find(ctx context.Context, j *jobs.Job) (asset worker.Asset, found bool, err error) {
	asset, err = call(a.p, "find", j.ID, func() (worker.Asset, error) {
		var s worker.Asset
		s, found, err = a.p.assets.Find(ctx, j)
		return s, err
	})
	return asset, found, err
}

func (a assetsPort) Prefix(j *jobs.Job) string { return a.p.assets.Prefix(j) }

type lineagePort struct{ p *process }

func (l lineagePort) AppendGeneration(ctx context.Context, row *schemas.GenerationRow) error {
	return act(l.p, "generation", row.GetJobId(), func() error { return l.p.lineage.AppendGeneration(ctx, row) })
}

func (l lineagePort) AppendAttempt(ctx context.Context, row *schemas.AttemptRow) error {
	return act(l.p, "attempt", row.GetJobId(), func() error { return l.p.lineage.AppendAttempt(ctx, row) })
}

func (l lineagePort) AppendBatch(ctx context.Context, row *schemas.BatchRow) error {
	return act(l.p, "batch", row.GetBatchId(), func() error {
		if l.p.refuseBatches {
			return fmt.Errorf("append: %w", worker.ErrRowRefused)
		}
		return l.p.batches.AppendBatch(ctx, row)
	})
}

type resultsPort struct{ p *process }

func (r resultsPort) Publish(ctx context.Context, e *schemas.JobResult) error {
	return act(r.p, "result", e.GetJobId(), func() error { return r.p.results.Publish(ctx, e) })
}

type queuePort struct{ p *process }

func (q queuePort) PublishAgain(ctx context.Context, j *jobs.Job) error {
	return act(q.p, "publish again", j.ID, func() error { return q.p.queue.PublishAgain(ctx, j) })
}

func (q queuePort) PublishHandoff(ctx context.Context, h *schemas.BatchHandoff) error {
	return act(q.p, "hand off", h.GetBatchId(), func() error { return q.p.queue.PublishHandoff(ctx, h) })
}

type vertexPort struct{ p *process }

// unanswered makes a failed call one whose fate nobody knows.
func unanswered(err error) error {
	if errors.Is(err, errFault) {
		return &worker.CallError{Kind: worker.Unanswered, Lane: lane, Err: err}
	}
	return err
}

func (v vertexPort) Create(ctx context.Context, r worker.BatchRequest) (worker.VertexBatch, error) {
	// A request that is on the wire is carried out, whatever has become of its sender.
	j, err := call(v.p, "create", r.ID, func() (worker.VertexBatch, error) { return v.p.vertex.Create(context.WithoutCancel(ctx), r) })
	return j, unanswered(err)
}

func (v vertexPort) Find(ctx context.Context, lane worker.Lane, batch string) ([]worker.VertexBatch, error) {
	all, err := call(v.p, "find job", batch, func() ([]worker.VertexBatch, error) { return v.p.vertex.Find(ctx, lane, batch) })
	return all, unanswered(err)
}

func (v vertexPort) Get(ctx context.Context, lane worker.Lane, name string) (worker.VertexBatch, error) {
	j, err := call(v.p, "get job", name, func() (worker.VertexBatch, error) { return v.p.vertex.Get(ctx, lane, name) })
	return j, unanswered(err)
}

func (v vertexPort) Cancel(ctx context.Context, lane worker.Lane, name string) error {
	return unanswered(act(v.p, "cancel job", name, func() error { return v.p.vertex.Cancel(ctx, lane, name) }))
}

// until waits for something, for so long at most, and reports whether it came.
func until(most time.Duration, what func() bool) bool {
	for began := time.Now(); time.Since(began) < most; time.Sleep(5 * time.Second) {
		if what() {
			return true
		}
	}
	return what()
}

// await waits for what a test is about, for an hour at most, and fails the test otherwise.
func (w *world) await(what func() bool) {
	w.t.Helper()
	if !until(time.Hour, what) {
		w.t.Fatal("it never came to that")
	}
}

// settle waits until nothing is in the queue, for so long at most, and fails the test otherwise.
func (w *world) settle(most time.Duration) {
	w.t.Helper()
	if until(most, w.idle) {
		return
	}
	w.t.Fatalf("not at rest after %s: %d jobs for batches, %d online, %d hand-offs", most, w.queue.Batch.Held(), w.queue.Online.Held(), w.queue.Handoffs.Held())
}

func (w *world) idle() bool {
	return w.queue.Batch.Held() == 0 && w.queue.Online.Held() == 0 && w.queue.Handoffs.Held() == 0
}

// rows returns the rows of a job.
func (w *world) rows(id string) (all []*schemas.GenerationRow) {
	for _, r := range w.lineage.Generations() {
		if r.GetJobId() == id {
			all = append(all, r)
		}
	}
	return all
}

// row returns the row of a job, whose rows must all say the same.
func (w *world) row(id string) *schemas.GenerationRow {
	w.t.Helper()
	return w.same(id, w.rows(id))
}

func (w *world) same(id string, all []*schemas.GenerationRow) *schemas.GenerationRow {
	w.t.Helper()
	if len(all) == 0 {
		w.t.Fatalf("job %s has no row", id)
	}
	for _, r := range all[1:] {
		if r.GetFinishedAt() != all[0].GetFinishedAt() || r.GetReason() != all[0].GetReason() {
			w.t.Errorf("job %s ended as %s and as %s", id, all[0].GetReason(), r.GetReason())
		}
	}
	return all[0]
}

// books checks that each job with such an id ended once, that its image was made for its prompt, and that no image is held in memory. It returns how many
// jobs ended for each reason.
func (w *world) books(prompts map[string]string) map[string]int {
	w.t.Helper()
	reasons := map[string]int{}
	objects := w.assets.Objects()
	rows := map[string][]*schemas.GenerationRow{}
	for _, r := range w.lineage.Generations() {
		rows[r.GetJobId()] = append(rows[r.GetJobId()], r)
	}
	for id, prompt := range prompts {
		row := w.same(id, rows[id])
		reasons[row.GetReason()]++
		o, stored := objects["keep/default/"+id]
		switch made := row.GetReason() == string(jobs.ReasonImage); {
		case made != stored:
			w.t.Errorf("job %s ended as %s; an asset is stored: %v", id, row.GetReason(), stored)
		case made && !strings.HasPrefix(string(o.Content), prompt+" #"):
			w.t.Errorf("job %s asked for %q and got %q", id, prompt, o.Content)
		case made && row.GetAssetUri() != o.URI:
			w.t.Errorf("job %s: the row names %s, not %s", id, row.GetAssetUri(), o.URI)
		}
	}
	if used := w.budget.Usage().Reserved; used != 0 {
		w.t.Errorf("%d bytes of images are still in memory", used)
	}
	return reasons
}

// closeBooks waits until nothing is in the queue, for so long at most, stops the workers in order, and checks the books of these jobs. It
// returns how many of them ended for each reason.
func (w *world) closeBooks(most time.Duration, prompts map[string]string, workers ...*process) map[string]int {
	w.t.Helper()
	w.settle(most)
	for _, p := range workers {
		p.halt()
	}
	return w.books(prompts)
}

// prompts returns the prompts of publishMany by id.
func prompts(n int) map[string]string {
	all := map[string]string{}
	for i := range n {
		all[fmt.Sprintf("job-%d", i)] = fmt.Sprintf("prompt %d.", i)
	}
	return all
}

// closed returns the rows of closed batches, and checks their books.
func (w *world) closed() (all []*schemas.BatchRow) {
	w.t.Helper()
	seen := map[string]bool{}
	for _, r := range w.batches.Rows("") {
		if r.GetState() != "closed" || seen[r.GetBatchId()] {
			continue
		}
		seen[r.GetBatchId()] = true
		all = append(all, r)
		if sum := r.GetDone() + r.GetRefused() + r.GetFailed() + r.GetRequeued(); sum != r.GetJobs() {
			w.t.Errorf("batch %s has %d jobs; %d done, %d refused, %d failed and %d requeued are %d",
				r.GetBatchId(), r.GetJobs(), r.GetDone(), r.GetRefused(), r.GetFailed(), r.GetRequeued(), sum)
		}
	}
	return all
}

type filesPort struct{ p *process }

func (f filesPort) Write(ctx context.Context, name string, write func(io.Writer) error) error {
	return act(f.p, "write", name, func() error { return f.p.files.Write(ctx, name, write) })
}

func (f filesPort) Open(ctx context.Context, name string, offset, length int64) (io.ReadCloser, error) {
	return call(f.p, "open", name, func() (io.ReadCloser, error) { return f.p.files.Open(ctx, name, offset, length) })
}

func (f filesPort) List(ctx context.Context, prefix string) ([]batch.File, error) {
	return call(f.p, "list", prefix, func() ([]batch.File, error) { return f.p.files.List(ctx, prefix) })
}

func (f filesPort) Read(ctx context.Context, name string) (data []byte, generation int64, err error) {
	data, err = call(f.p, "read", name, func() ([]byte, error) {
		var all []byte
		all, generation, err = f.p.files.Read(ctx, name)
		return all, err
	})
	return data, generation, err
}

func (f filesPort) Swap(ctx context.Context, name string, generation int64, data []byte) (int64, error) {
	return call(f.p, "swap", name, func() (int64, error) { return f.p.files.Swap(ctx, name, generation, data) })
}

func (f filesPort) URI(name string) string         { return f.p.files.URI(name) }
func (f filesPort) Name(uri string) (string, bool) { return f.p.files.Name(uri) }
func (f filesPort) Serves(region string) bool      { return f.p.files.Serves(region) }

// workertestAlive opens the ledger for somebody who gives signs of life until the test ends.
func workertestAlive(w *world, id string) *workertest.OpenLedger {
	l := w.ledger.Open(id, nil)
	ctx, stop := context.WithCancel(context.Background())
	w.t.Cleanup(stop)
	go l.Beat(ctx)
	return l
}

// parse returns a batch job.
func (w *world) parse(id, prompt, submission string) *jobs.Job {
	w.t.Helper()
	j, err := w.run.Catalogue.Parse(&schemas.Job{Id: id, Prompt: prompt, Submission: submission, Mode: "batch"})
	if err != nil {
		w.t.Fatal(err)
	}
	return j
}

// generation is the row of a job that was made.
func generation(j *jobs.Job) *schemas.GenerationRow {
	return &schemas.GenerationRow{
		JobId: j.ID, Submission: j.Submission, Outcome: string(jobs.Succeeded), Reason: string(jobs.ReasonImage), FinishedAt: time.Now().UnixMicro(),
	}
}

// handoff publishes the hand-off of a batch.
func (w *world) handoff(id, gatherer string) {
	w.t.Helper()
	if err := w.queue.PublishHandoff(w.t.Context(), &schemas.BatchHandoff{BatchId: id, Gatherer: gatherer}); err != nil {
		w.t.Fatal(err)
	}
}

// manifest returns the manifest of the batch that a message hands off, if it is sealed and the message is not about a range.
func (w *world) manifest(data []byte) *batch.Manifest {
	w.t.Helper()
	h := &schemas.BatchHandoff{}
	if err := schemas.Unmarshal(data, h); err != nil {
		w.t.Fatal(err)
	}
	s := w.status(h.GetBatchId())
	if s == nil || h.GetRange() != 0 {
		return nil
	}
	return &s.Manifest
}

// status returns where a batch stands, nil when it is not sealed. It may be called from any goroutine.
func (w *world) status(id string) *batch.Status {
	w.t.Helper()
	seal, err := w.ledger.Open("reader", nil).ReadSeal(context.Background(), id)
	if err == nil && !seal.Sealed {
		return nil
	}
	var s *batch.Status
	if err == nil {
		s, err = batch.ReadStatus(context.Background(), w.files, seal.Manifest)
	}
	if err != nil {
		w.t.Error(err)
		return nil
	}
	return s
}
