package batchtest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/worker"
)

// Vertex implements batch.Vertex: its jobs run by the clock. What they do is up to Plan.
type Vertex struct {
	Files *Files
	// Plan says what becomes of a batch's n-th job, from 1. Nil: all goes well.
	Plan func(batch string, n int) Plan
	// Row says what becomes of a request that a job gets to. Nil: all goes well.
	Row func(r Request) Row
	// Created, if set, is told of each job when it is created, and how often each prompt is in jobs that have not ended. It must not call the
	// Vertex.
	Created func(batch string, rows []Request, live map[string]int)
	// Exported, if set, is told of each line of an output that holds a readable answer.
	Exported func(batch string, r Request, copy bool)
	// Ended, if set, is told of the files of each output.
	Ended func(files []string)
	// Lag is for how long Find does not know of a new job.
	Lag time.Duration
	// Seed decides the order of the rows in outputs.
	Seed uint64

	mu   sync.Mutex
	jobs []*job
	made map[string]int // answers with an image, by prompt
}

// Plan is what becomes of a job. Zero values stand for the ordinary: it begins after a minute, runs for ten, and succeeds.
type Plan struct {
	Queue, Run time.Duration     // negative: for ever
	End        worker.BatchState // how it ends
	Part       float64           // of the rows that it gets to, when it does not succeed
	Shards     int               // files of output
	Error      string
	NoFolder   bool   // Vertex does not say where the output is
	Folder     string // Vertex says that it is there
}

// Row is what becomes of a request.
type Row struct {
	Copies   int         // lines besides the first, each with an answer of its own
	Missing  bool        // no line at all
	Status   string      // it fails: the name of a worker.Kind, a colon and words
	Reason   jobs.Reason // of its answer; empty: an image
	NoUsage  bool
	NoLabels bool
	Labels   string // other labels in place of its own: a row's number of six digits
	Damage   Damage // of its first line
	Orphan   bool   // one more line, of a request that nobody made
}

// Damage is what is wrong with a line.
type Damage int

// Damages.
const (
	Cut     Damage = iota + 1 // the line breaks off in its response
	CutHead                   // the line breaks off in its request
	Garbage                   // the line is not JSON
	Base64                    // the image can't be decoded
)

type job struct {
	worker.VertexBatch
	batch     string
	folder    string
	requests  []Request
	plan      Plan
	cancelled time.Time
}

// Create implements batch.Vertex.
func (v *Vertex) Create(ctx context.Context, r worker.BatchRequest) (worker.VertexBatch, error) {
	name, ok := v.Files.Name(r.Input)
	data, generation, err := v.Files.Read(ctx, name)
	if err != nil {
		return worker.VertexBatch{}, err
	}
	requests, err := readInput(data)
	if !ok || generation == 0 || err != nil {
		return worker.VertexBatch{}, &worker.CallError{Kind: worker.Rejected, Status: http.StatusBadRequest, Detail: fmt.Sprintf("no input: %v", err), Lane: r.Lane}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	j := &job{batch: r.ID, requests: requests}
	j.Name = fmt.Sprintf("projects/1/locations/global/batchPredictionJobs/%d", len(v.jobs)+1)
	j.State, j.Created = worker.BatchPending, time.Now()
	j.folder = fmt.Sprintf("%sprediction-model-%d/", r.OutputPrefix, len(v.jobs)+1)
	n := 1
	for _, other := range v.jobs {
		if other.batch == r.ID {
			n++
		}
	}
	if v.Plan != nil {
		j.plan = v.Plan(r.ID, n)
	}
	j.plan.setDefaults()
	v.jobs = append(v.jobs, j)
	if v.Created != nil {
		v.Created(r.ID, requests, v.live())
	}
	return j.VertexBatch, nil
}

// live returns how often each prompt is in jobs that have not ended. The caller holds the lock.
func (v *Vertex) live() map[string]int {
	count := map[string]int{}
	for _, j := range v.jobs {
		if v.advance(j); j.State.Terminal() {
			continue
		}
		for _, r := range j.requests {
			count[r.Prompt]++
		}
	}
	return count
}

func (p *Plan) setDefaults() {
	if p.Queue == 0 {
		p.Queue = time.Minute
	}
	if p.Run == 0 {
		p.Run = 10 * time.Minute
	}
	if p.End == "" {
		p.End = worker.BatchSucceeded
	}
	p.Shards = max(p.Shards, 1)
}

// Find implements batch.Vertex.
func (v *Vertex) Find(ctx context.Context, _ worker.Lane, batch string) ([]worker.VertexBatch, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	var all []worker.VertexBatch
	for _, j := range v.jobs {
		if j.batch == batch && time.Since(j.Created) >= v.Lag {
			v.advance(j)
			all = append(all, j.VertexBatch)
		}
	}
	return all, ctx.Err()
}

// Get implements batch.Vertex.
func (v *Vertex) Get(ctx context.Context, lane worker.Lane, name string) (worker.VertexBatch, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, j := range v.jobs {
		if j.Name == name {
			v.advance(j)
			return j.VertexBatch, ctx.Err()
		}
	}
	return worker.VertexBatch{}, &worker.CallError{Kind: worker.Denied, Status: http.StatusNotFound, Detail: "no such job", Lane: lane}
}

// Cancel implements batch.Vertex.
func (v *Vertex) Cancel(ctx context.Context, _ worker.Lane, name string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, j := range v.jobs {
		if j.Name == name && j.cancelled.IsZero() && !j.State.Terminal() {
			v.advance(j)
			j.cancelled = time.Now()
		}
	}
	return ctx.Err()
}

// Delete forgets a job.
func (v *Vertex) Delete(name string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.jobs = slices.DeleteFunc(v.jobs, func(j *job) bool { return j.Name == name })
}

// cancelTime is how long a job takes to end that was cancelled.
const cancelTime = time.Minute

// advance brings a job to where it is now. The caller holds the lock.
func (v *Vertex) advance(j *job) {
	now, p := time.Now(), j.plan
	if j.State.Terminal() {
		return
	}
	begins, cancelled := j.Created.Add(p.Queue), !j.cancelled.IsZero()
	if p.Queue >= 0 && !now.Before(begins) && (!cancelled || begins.Before(j.cancelled)) {
		j.State, j.Started = worker.BatchRunning, begins
		if ends := begins.Add(p.Run); p.Run >= 0 && !now.Before(ends) && (!cancelled || ends.Before(j.cancelled)) {
			v.end(j, p.End, ends)
			return
		}
	}
	if cancelled && now.Sub(j.cancelled) >= cancelTime {
		v.end(j, worker.BatchCancelled, j.cancelled.Add(cancelTime))
	} else if cancelled {
		j.State = "CANCELLING"
	}
}

// end ends a job and writes its output. The caller holds the lock.
func (v *Vertex) end(j *job, state worker.BatchState, at time.Time) {
	j.State, j.Ended, j.Error = state, at, j.plan.Error
	requests := j.requests
	switch {
	case state == worker.BatchSucceeded:
	case j.Started.IsZero():
		requests = nil
	default:
		requests = requests[:int(j.plan.Part*float64(len(requests)))]
	}
	lines := v.lines(j, requests)
	j.Incomplete = int64(len(j.requests) - len(requests))
	folder, _ := v.Files.Name(j.folder)
	var files []string
	for s := range j.plan.Shards {
		var part []byte
		for i := s; i < len(lines); i += j.plan.Shards {
			part = append(part, lines[i]...)
		}
		files = append(files, fmt.Sprintf("%spredictions_%d.jsonl", folder, s))
		v.Files.mu.Lock()
		v.Files.put(files[s], part)
		v.Files.mu.Unlock()
	}
	if v.Ended != nil {
		v.Ended(files)
	}
	if !j.plan.NoFolder {
		j.OutputDir = cmp.Or(j.plan.Folder, strings.TrimSuffix(j.folder, "/"))
	}
}

// lines makes the rows of an output, in an order of their own.
func (v *Vertex) lines(j *job, requests []Request) [][]byte {
	var all [][]byte
	for _, r := range requests {
		row := Row{}
		if v.Row != nil {
			row = v.Row(r)
		}
		if row.Status != "" {
			j.Failed++
		} else {
			j.Succeeded++
		}
		all = append(all, v.row(j.batch, r, row)...)
	}
	order := rand.New(rand.NewPCG(v.Seed, uint64(len(v.jobs))))
	order.Shuffle(len(all), func(a, b int) { all[a], all[b] = all[b], all[a] })
	return all
}

// row makes the lines of a request. The caller holds the lock.
func (v *Vertex) row(batch string, r Request, row Row) [][]byte {
	var all [][]byte
	for copy := range row.Copies + 1 {
		l := line{Request: r, Status: row.Status}
		switch {
		case row.NoLabels:
			l.Request.Labels = nil
		case row.Labels != "":
			l.Request.Labels = map[string]string{"row_hi": row.Labels[:3], "row_lo": row.Labels[3:]}
		}
		if row.Status == "" {
			l.Response = v.answer(r, row)
		}
		if row.Missing {
			continue // made all the same
		}
		damage := row.Damage
		if copy > 0 {
			damage = 0
		}
		all = append(all, encode(l, damage))
		if v.Exported != nil && damage == 0 && row.Status == "" && row.Reason != jobs.ReasonBadAnswer {
			v.Exported(batch, r, copy > 0)
		}
	}
	if row.Orphan {
		all = append(all, encode(line{Request: Request{Prompt: "nobody's " + r.Prompt}, Response: v.answer(Request{Prompt: "nobody's"}, Row{})}, 0))
	}
	return all
}

func (v *Vertex) answer(r Request, row Row) *response {
	a := &response{Reason: row.Reason}
	if row.Reason == "" {
		if v.made == nil {
			v.made = map[string]int{}
		}
		v.made[r.Prompt]++
		a.Reason, a.Image = jobs.ReasonImage, fmt.Sprintf("%s #%d", r.Prompt, v.made[r.Prompt])
	}
	if !row.NoUsage {
		a.Usage = &jobs.Usage{Prompt: 10, Total: 10}
		if a.Image != "" {
			a.Usage.Image, a.Usage.Total = 1120, 1130
		}
	}
	return a
}

func encode(l line, damage Damage) []byte {
	if damage == Base64 && l.Response != nil {
		l.Response.Image += "\x00"
	}
	data, err := json.Marshal(l)
	if err != nil {
		panic(err) // of plain types
	}
	switch damage {
	case Cut:
		data = data[:len(data)-10]
	case CutHead:
		data = data[:15]
	case Garbage:
		data = bytes.Repeat([]byte("x"), 20)
	}
	return append(data, '\n')
}

// Made returns how many images were made for a prompt.
func (v *Vertex) Made(prompt string) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.made[prompt]
}

// Jobs returns the jobs of a batch, or of all of them when batch is empty, oldest first.
func (v *Vertex) Jobs(batch string) []worker.VertexBatch {
	v.mu.Lock()
	defer v.mu.Unlock()
	var all []worker.VertexBatch
	for _, j := range v.jobs {
		if batch == "" || j.batch == batch {
			v.advance(j)
			all = append(all, j.VertexBatch)
		}
	}
	return all
}
