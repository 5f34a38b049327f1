package workertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/assetmill/assetmill/worker"
)

// Times of Vertex' batches.
const (
	longestQueue = 40 * time.Minute // of one that does not hang
	never        = 100 * 24 * time.Hour
	expiresAfter = 3 * time.Hour // in the queue
	rowTime      = 100 * time.Millisecond
	shortestRun  = 2 * time.Minute
	cancelTime   = time.Minute     // from the asking to the end
	longestLag   = 2 * time.Minute // until a new job is in lists
)

// vertexJob is a batch prediction job as Vertex knows it. What becomes of it is decided when it is created; only a cancel comes between.
type vertexJob struct {
	name      string
	batch     *simBatch
	rows      []request
	seed      uint64
	output    string // folder in the work bucket
	created   time.Duration
	listed    time.Duration // from when it is in lists
	starts    time.Duration
	ends      time.Duration
	end       worker.BatchState
	share     float64       // of its rows that are made when it comes to its end
	cancelled time.Duration // when it ends because of a cancel; 0: it does not
	made      bool          // whether the output is there
	succeeded int64
	failed    int64
}

// vertexPort is Vertex' batch API as one process sees it.
type vertexPort struct{ *process }

// call makes a request. What a worker gets to know of one that broke down depends on how; what it can't know, it must not guess.
func (p vertexPort) call(ctx context.Context, b *simBatch, lane worker.Lane, effect func() error) error {
	s, ran := p.sim, false
	err := p.request(ctx, svcBatch, aboutBatch(b), func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		ran = true
		return effect()
	})
	var ce *worker.CallError
	if err == nil || errors.As(err, &ce) || errors.Is(err, errKilled) {
		return err
	}
	kinds := []worker.Kind{worker.Unanswered, worker.Failing}
	if !ran {
		kinds = append(kinds, worker.Unreached, worker.Throttled)
	}
	s.mu.Lock()
	n := s.countRequest(aboutBatch(b))
	s.mu.Unlock()
	return callError(kinds[s.dice.bits(saltBatch, aboutBatch(b), n)%uint64(len(kinds))], 0, lane, err)
}

// Create implements batch.Vertex.
func (p vertexPort) Create(ctx context.Context, r worker.BatchRequest) (seen worker.VertexBatch, err error) {
	s, b := p.sim, p.sim.batch(r.ID)
	err = p.call(ctx, b, r.Lane, func() error {
		input := b.files[strings.TrimPrefix(r.Input, workBucket+b.dir())]
		if input == nil {
			return &worker.CallError{Kind: worker.Rejected, Status: 400, Lane: r.Lane, Detail: "there is no " + r.Input}
		}
		v := &vertexJob{batch: b, output: strings.TrimPrefix(r.OutputPrefix, workBucket+b.dir()), created: s.now()}
		for line := range bytes.Lines(input.data) {
			row, err := parseRequest(strings.Fields(string(line)))
			if err != nil {
				s.audit.violate(conservation, "the input of %s can't be read: %v", b.id, err)
			}
			v.rows = append(v.rows, row)
		}
		v.seed = s.dice.bits(saltBatch, uint64(v.rows[0].n), uint64(len(b.vertex)))
		if ce := s.refuseBatch(v, r.Lane); ce != nil {
			return ce
		}
		v.name = fmt.Sprintf("projects/first/locations/%s/batchPredictionJobs/%d", r.Lane.Location, len(s.batches.vertex)+1)
		s.schedule(v)
		s.audit.created(p.process, v, r.Lane)
		b.vertex = append(b.vertex, v)
		s.batches.vertex[v.name] = v
		seen = s.look(v)
		return nil
	})
	return seen, err
}

// refuseBatch says why a batch is not created, at no cost.
func (s *sim) refuseBatch(v *vertexJob, lane worker.Lane) error {
	roll := s.dice.roll(saltBatch, v.seed, s.countRequest(aboutBatch(v.batch)))
	switch {
	case !s.may(BatchCreate):
	case s.dice.roll(saltBatch, v.seed, 1<<32) < 0.02:
		return &worker.CallError{Kind: worker.Rejected, Status: 400, Lane: lane, Detail: "invalid argument"}
	case roll < 0.05:
		return &worker.CallError{Kind: worker.Throttled, Status: 429, Lane: lane}
	case roll < 0.06:
		return &worker.CallError{Kind: worker.Denied, Status: 403, Lane: lane}
	}
	return nil
}

// schedule decides what becomes of a job.
func (s *sim) schedule(v *vertexJob) {
	r := rand.New(rand.NewPCG(v.seed, uint64(saltBatch)))
	queue, run, part, fate := r.Float64(), r.Float64(), r.Float64(), r.Float64()
	v.listed = v.created
	if s.may(BatchCreate) {
		v.listed += time.Duration(r.Float64() * float64(longestLag))
	}
	v.starts = v.created + 10*time.Second + time.Duration(queue*queue*queue*float64(longestQueue))
	v.ends = v.starts + shortestRun + time.Duration((0.5+run)*float64(len(v.rows))*float64(rowTime))
	v.end, v.share = worker.BatchSucceeded, 1
	if !s.may(BatchEnds) {
		return
	}
	switch {
	case fate < 0.04: // it hangs
		v.starts, v.ends = never, never
	case fate < 0.06:
		v.starts, v.ends, v.end, v.share = never, v.created+time.Duration((0.2+part)*float64(expiresAfter)), worker.BatchExpired, 0
	case fate < 0.08:
		v.end, v.share = worker.BatchExpired, part
	case fate < 0.10:
		v.end, v.share = worker.BatchFailed, 0
	case fate < 0.13:
		v.end, v.share = worker.BatchFailed, part
	case fate < 0.17:
		v.end, v.share = worker.BatchPartly, 0.7+0.3*part
	case fate < 0.18 && s.may(BatchWish): // by somebody with access to the project
		v.cancel(v.starts + time.Duration(part*float64(v.ends-v.starts)))
	}
}

// cancel ends the job at that time, with what is made by then.
func (v *vertexJob) cancel(at time.Duration) {
	if at >= v.ends || v.cancelled != 0 && v.cancelled <= at {
		return
	}
	v.cancelled = at
}

// state is the job's state at a time.
func (v *vertexJob) state(now time.Duration) worker.BatchState {
	switch {
	case v.cancelled != 0 && now >= v.cancelled:
		return worker.BatchCancelled
	case now >= v.ends:
		return v.end
	case now >= v.starts:
		return worker.BatchRunning
	case now-v.created < 5*time.Second:
		return worker.BatchQueued
	default:
		return worker.BatchPending
	}
}

// look is what Vertex says of a job. The output of one that has ended is there by then. The caller holds sim.mu.
func (s *sim) look(v *vertexJob) worker.VertexBatch {
	now := s.now()
	seen := worker.VertexBatch{Name: v.name, State: v.state(now), Created: s.began.Add(v.created)}
	if now >= v.starts && (v.cancelled == 0 || v.cancelled > v.starts) {
		seen.Started = s.began.Add(v.starts)
	}
	if !seen.State.Terminal() {
		return seen
	}
	s.export(v)
	ended := v.ends
	if seen.State == worker.BatchCancelled {
		ended = v.cancelled
	}
	seen.Ended = s.began.Add(ended)
	seen.Succeeded, seen.Failed, seen.Incomplete = v.succeeded, v.failed, max(0, int64(len(v.rows))-v.succeeded-v.failed)
	if v.succeeded+v.failed > 0 {
		seen.OutputDir = workBucket + v.batch.dir() + v.folder()
	}
	if seen.State == worker.BatchFailed {
		seen.Error = "internal error"
	}
	return seen
}

func (v *vertexJob) folder() string {
	return v.output + "prediction-model-" + v.name[strings.LastIndexByte(v.name, '/')+1:] + "/"
}

// Find implements batch.Vertex.
func (p vertexPort) Find(ctx context.Context, lane worker.Lane, id string) (found []worker.VertexBatch, err error) {
	s, b := p.sim, p.sim.batch(id)
	err = p.call(ctx, b, lane, func() error {
		found = nil
		if s.cfg.sabotage == blindFind {
			return nil
		}
		for _, v := range b.vertex {
			if s.now() >= v.listed {
				found = append(found, s.look(v))
			}
		}
		return nil
	})
	return found, err
}

// Get implements batch.Vertex.
func (p vertexPort) Get(ctx context.Context, lane worker.Lane, name string) (seen worker.VertexBatch, err error) {
	err = p.about(ctx, lane, name, func(v *vertexJob) { seen = p.sim.look(v) })
	return seen, err
}

// Cancel implements batch.Vertex.
func (p vertexPort) Cancel(ctx context.Context, lane worker.Lane, name string) error {
	return p.about(ctx, lane, name, func(v *vertexJob) { v.cancel(p.sim.now() + cancelTime) })
}

// about is a request about a job that exists.
func (p vertexPort) about(ctx context.Context, lane worker.Lane, name string, effect func(*vertexJob)) error {
	p.sim.mu.Lock()
	v := p.sim.batches.vertex[name]
	p.sim.mu.Unlock()
	if v == nil {
		return &worker.CallError{Kind: worker.Denied, Status: 404, Lane: lane, Detail: "there is no " + name}
	}
	return p.call(ctx, v.batch, lane, func() error {
		effect(v)
		return nil
	})
}

// outputFiles is how many files a job's output has at most.
const outputFiles = 3

// export makes the output of a job that has ended: in any order, and with whatever is wrong with it. The caller holds sim.mu.
func (s *sim) export(v *vertexJob) {
	if v.made {
		return
	}
	v.made = true
	share := v.share
	if v.cancelled != 0 && v.cancelled < v.ends {
		share = 0
		if v.cancelled > v.starts {
			share = float64(v.cancelled-v.starts) / float64(v.ends-v.starts)
		}
	}
	o := &output{s: s, v: v, r: rand.New(rand.NewPCG(v.seed, uint64(saltRow)))}
	for _, i := range o.r.Perm(len(v.rows))[:int(share*float64(len(v.rows)))] {
		o.row(i)
	}
	o.r.Shuffle(len(o.lines), func(i, j int) { o.lines[i], o.lines[j] = o.lines[j], o.lines[i] })
	parts := 1 + o.r.IntN(outputFiles)
	for part := range parts {
		lines := o.lines[part*len(o.lines)/parts : (part+1)*len(o.lines)/parts]
		v.batch.lines += len(lines)
		text := strings.Join(lines, "\n")
		if len(lines) > 0 && o.r.IntN(4) > 0 {
			text += "\n" // the last line of a file may have no end
		}
		s.put(v.batch, fmt.Sprintf("%spredictions-%05d-of-%05d.jsonl", v.folder(), part, parts), []byte(text))
	}
	s.put(v.batch, v.folder()+"incremental_predictions.txt", []byte("no rows here"))
}

// output is a batch's output in the making.
type output struct {
	s     *sim
	v     *vertexJob
	r     *rand.Rand
	lines []string
}

// faults of rows, as shares of a batch's rows.
const (
	missingShare  = 0.01
	damagedShare  = 0.005
	twiceShare    = 0.01
	oftenShare    = 0.0005 // as often as manyTimes
	manyTimes     = 20
	failedShare   = 0.2 // of the lines beyond the first of a row: they failed, although the row did not
	uselessShare  = 0.005
	busyShare     = 0.01
	failingShare  = 0.005
	unlabelled    = 0.05
	mislabelled   = 0.005
	foreignerRate = 0.001
)

// row makes one row, and bills it.
func (o *output) row(i int) {
	s, asked := o.s, o.v.rows[i]
	n, faults := asked.n, s.may(BatchRows)
	labels, what := o.r.Float64(), o.r.Float64()
	asked = o.relabel(asked, labels, faults)
	if faults && o.r.Float64() < foreignerRate {
		o.foreigner()
	}
	switch {
	case s.rejected(n):
		o.free(asked, answerRejected)
		s.audit.rowAsked(n)
	case faults && what < busyShare:
		o.free(asked, answerBusy)
	case faults && what < busyShare+failingShare:
		o.free(asked, answerFailing)
		s.audit.rowAsked(n)
	case s.refusal(n) != "":
		o.paid(asked, answerRefused, refused)
	case faults && (what < 0.02+uselessShare || s.cfg.harsh && what > 0.7):
		o.paid(asked, answerUseless, useless)
	case faults && what < 0.03+missingShare:
		s.audit.batchCall(o.v, n, missingRow)
		o.v.succeeded++
	case faults && what < 0.05+damagedShare:
		s.audit.batchCall(o.v, n, damagedRow)
		o.v.succeeded++
		o.lines = append(o.lines, o.damaged(asked))
	default:
		o.paid(asked, answerImage, delivered)
		o.again(asked, what)
	}
}

// relabel changes the labels that the answer echoes.
func (o *output) relabel(asked request, labels float64, faults bool) request {
	switch {
	case !faults:
	case labels < unlabelled, twinOf(asked.n) != asked.n && labels < 0.5:
		asked.hi, asked.lo = "", ""
	case labels < unlabelled+mislabelled:
		other := o.v.rows[o.r.IntN(len(o.v.rows))]
		asked.hi, asked.lo = other.hi, other.lo
	}
	return asked
}

// paid adds a line that is billed.
func (o *output) paid(asked request, kind string, end fate) {
	call := o.s.audit.batchCall(o.v, asked.n, end)
	o.v.succeeded++
	o.lines = append(o.lines, fmt.Sprintf("%s %s %d", asked, kind, call))
}

// free adds a line of a row that failed.
func (o *output) free(asked request, status string) {
	o.v.failed++
	o.lines = append(o.lines, fmt.Sprintf("%s %s 0", asked, status))
}

// again adds lines of a row that is there already. Each has an image of its own, and is billed, or failed.
func (o *output) again(asked request, what float64) {
	times := 0
	switch {
	case !o.s.may(BatchRows):
	case what > 1-oftenShare:
		times = manyTimes - 1
	case what > 1-oftenShare-twiceShare, o.s.cfg.harsh && what > 0.4:
		times = 1
	}
	for range times {
		if o.r.Float64() < failedShare {
			o.free(asked, answerBusy)
			continue
		}
		call := o.s.audit.batchCall(o.v, asked.n, secondRow)
		o.lines = append(o.lines, fmt.Sprintf("%s %s %d", asked, answerImage, call))
	}
}

// damaged is a line that can't be used.
func (o *output) damaged(asked request) string {
	line := fmt.Sprintf("%s %s", asked, answerImage)
	switch o.r.IntN(3) {
	case 0:
		return "\x00" + line
	case 1:
		return line[:o.r.IntN(len(line)-1)+1]
	default:
		return line
	}
}

// foreigner adds a line of a request that is no row's of the batch.
func (o *output) foreigner() {
	n := o.r.IntN(o.s.cfg.Jobs)
	if o.s.audit.truth[n].batch == o.v.batch.number || twinOf(n) != n {
		return
	}
	o.lines = append(o.lines, fmt.Sprintf("%s %s %d", request{n: n, hi: "000", lo: "000"}, answerImage, 255))
	o.s.books.Foreigners++
}
