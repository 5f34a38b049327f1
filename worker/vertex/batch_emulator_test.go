package vertex

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/assetmill/assetmill/internal/vertextest"
	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
	"github.com/assetmill/assetmill/worker"
)

// objects is Cloud Storage for one test, by URI.
type objects struct {
	mu  sync.Mutex
	all map[string][]byte
}

type object struct {
	bytes.Buffer
	closed func([]byte) error
}

func (o *object) Close() error { return o.closed(o.Bytes()) }

func (o *objects) create(ctx context.Context, bucket, name, _ string) (io.WriteCloser, error) {
	return &object{closed: func(data []byte) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		o.mu.Lock()
		defer o.mu.Unlock()
		o.all["gs://"+bucket+"/"+name] = data
		return nil
	}}, nil
}

func (o *objects) open(_ context.Context, bucket, name string) (io.ReadCloser, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	data, ok := o.all["gs://"+bucket+"/"+name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

// below returns the URIs below a folder, in their order.
func (o *objects) below(dir string) []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	var all []string
	for uri := range o.all {
		if strings.HasPrefix(uri, dir+"/") {
			all = append(all, uri)
		}
	}
	slices.Sort(all)
	return all
}

// batchRun is a batch that Vertex has run.
type batchRun struct {
	jobs   map[[32]byte]*jobs.Job
	labels map[[32]byte][2]string
	rows   []rowResult
	job    worker.VertexBatch
	info   vertextest.BatchJob
}

// runBatch sends jobs to the emulator as a batch, and reads its output in parts of a size.
func runBatch(t *testing.T, cfg vertextest.Batch, part int64, all []*jobs.Job) *batchRun {
	t.Helper()
	store := &objects{all: map[string][]byte{}}
	cfg.Manual, cfg.SpoolDir = true, t.TempDir()
	s := startEmulator(t, vertextest.Config{PlainPictures: true, Batch: cfg, CreateObject: store.create, OpenObject: store.open})
	f := newFormat(t)
	run := &batchRun{jobs: map[[32]byte]*jobs.Job{}, labels: map[[32]byte][2]string{}}
	r := batchRequestOf("b-1")
	var input bytes.Buffer
	for i, j := range all {
		hi, lo := fmt.Sprintf("%03d", i/1000), fmt.Sprintf("%03d", i%1000)
		line, hash, err := f.Line(j, hi, lo)
		if err != nil {
			t.Fatal(err)
		}
		input.Write(line)
		run.jobs[hash], run.labels[hash] = j, [2]string{hi, lo}
	}
	store.all[r.Input] = input.Bytes()

	b := newBatches(t, s.GRPCAddr())
	created, err := b.Create(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	found, err := b.Find(t.Context(), r.Lane, r.ID)
	if err != nil || len(found) != 1 || found[0].Name != created.Name {
		t.Fatalf("found %+v, %v", found, err)
	}
	if found, err := b.Find(t.Context(), r.Lane, "b-2"); err != nil || len(found) != 0 {
		t.Errorf("found %+v, %v", found, err)
	}
	for run.job = created; !run.job.State.Terminal(); {
		if err := s.StepBatch(created.Name, 0); err != nil {
			t.Fatal(err)
		}
		if run.job, err = b.Get(t.Context(), r.Lane, created.Name); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Cancel(t.Context(), r.Lane, created.Name); err != nil {
		t.Errorf("cancel a finished job: %v", err)
	}
	run.info = s.BatchJobs()[0]
	for _, uri := range store.below(run.job.OutputDir) {
		data := store.all[uri]
		for at := int64(0); at < int64(len(data)); at += part {
			run.rows = append(run.rows, readRows(t, f, bytes.NewReader(data[at:]), at, min(part, int64(len(data))-at))...)
		}
	}
	return run
}

func TestEmulatorBatch(t *testing.T) {
	t.Parallel()
	var all []*jobs.Job
	for _, j := range batchJobs(t) {
		if j.Model.ID == batchLane.Model {
			all = append(all, j)
		}
	}
	for _, prompt := range []string{"a cup", "a cup [[thought]]", "a cup [[text]]", "a cup [[nousage]]", "a cup [[refuse:prompt]]", "a cup [[refuse:output]]", "a cup [[refuse:text]]", "a cup [[refuse:none]]"} {
		all = append(all, newJob(t, func(m *schemas.Job) { m.Prompt, m.Mode = prompt, "batch" }))
	}
	run := runBatch(t, vertextest.Batch{}, 1<<20, all)
	if run.job.State != worker.BatchSucceeded || run.job.Succeeded != int64(len(all)) || len(run.rows) != len(all) {
		t.Fatalf("%+v with %d rows", run.job, len(run.rows))
	}
	reasons := map[string]jobs.Reason{
		"a cup [[refuse:prompt]]": jobs.ReasonPromptFilter, "a cup [[refuse:output]]": jobs.ReasonOutputFilter,
		"a cup [[refuse:text]]": jobs.ReasonModelDeclined, "a cup [[refuse:none]]": jobs.ReasonNoImage,
	}
	for _, row := range run.rows {
		j := run.jobs[row.Hash]
		if j == nil || row.Answer == nil {
			t.Fatalf("row %+v", row)
		}
		delete(run.jobs, row.Hash)
		want, refused := reasons[j.Prompt]
		if !refused {
			want = jobs.ReasonImage
			if got, ok := vertextest.PromptHash(row.image); !ok || got != hashOf(j.Prompt) {
				t.Errorf("%s has another's image", j.Prompt)
			}
		}
		if row.Answer.Reason != want || row.Answer.UsageMissing != strings.Contains(j.Prompt, "nousage") {
			t.Errorf("%s: %+v", j.Prompt, row.Answer)
		}
	}
	if len(run.jobs) > 0 {
		t.Errorf("%d jobs have no row", len(run.jobs))
	}
}

// Every fault of an output at once. Each image must find its job, by its request and, where there are any, by its labels.
func TestEmulatorBatchFaults(t *testing.T) {
	t.Parallel()
	const rows = 600
	var all []*jobs.Job
	for i := range rows {
		all = append(all, newJob(t, func(m *schemas.Job) { m.Prompt, m.Mode = fmt.Sprintf("Lighthouse <%d> & \u00fc", i), "batch" }))
	}
	run := runBatch(t, vertextest.Batch{ShardRows: 150, Faults: vertextest.BatchFaults{
		BadRequest: 0.05, Throttled: 0.05, Internal: 0.05, Missing: 0.05, Lost: 0.03, Cut: 0.05, BadBase64: 0.05, Garbage: 0.02,
		Duplicated: 0.1, MaxCopies: 3, Orphans: 0.05, NoLabels: 0.2, Nulls: 0.3, ResponseFirst: 0.3, Escaped: 0.3, TwoImages: 0.2,
	}}, 50_000, all)
	if len(run.rows) != run.info.Exported || run.info.Damaged == 0 || run.info.Orphans == 0 || run.info.Duplicates == 0 {
		t.Fatalf("%d rows of %+v", len(run.rows), run.info)
	}
	var damaged, matched, orphans, images int
	kinds := map[worker.Kind]int{}
	for _, row := range run.rows {
		j := run.jobs[row.Hash]
		if labels := run.labels[row.Hash]; j != nil && row.Hi+row.Lo != "" && [2]string{row.Hi, row.Lo} != labels {
			t.Errorf("%s is of row %s %s, want %v", j.Prompt, row.Hi, row.Lo, labels)
		}
		switch {
		case row.Damaged != nil:
			damaged++
			if j != nil {
				matched++
			}
		case row.Err != nil:
			kinds[row.Err.Kind]++
			if j == nil {
				t.Errorf("a failed row of no job: %+v", row)
			}
		case j == nil:
			orphans++
		default:
			images++
			if got, ok := vertextest.PromptHash(row.image); !ok || got != hashOf(j.Prompt) || row.Answer.Reason != jobs.ReasonImage {
				t.Errorf("%s has another's image, or none: %+v", j.Prompt, row.Answer)
			}
		}
	}
	if damaged != run.info.Damaged || orphans != run.info.Orphans {
		t.Errorf("%d damaged, %d orphans; want %d, %d", damaged, orphans, run.info.Damaged, run.info.Orphans)
	}
	if matched == 0 || kinds[worker.Rejected] == 0 || kinds[worker.Throttled] == 0 || kinds[worker.Failing] == 0 || len(kinds) != 3 {
		t.Errorf("%d damaged rows matched; failed: %v", matched, kinds)
	}
	t.Logf("%d images, %d damaged of which %d are known, %d orphans, failed %v", images, damaged, matched, orphans, kinds)
}

func TestEmulatorBatchCreates(t *testing.T) {
	t.Parallel()
	store := &objects{all: map[string][]byte{}}
	fault := vertextest.CreateLost
	s := startEmulator(t, vertextest.Config{CreateObject: store.create, OpenObject: store.open, Batch: vertextest.Batch{
		Manual: true, SpoolDir: t.TempDir(),
		JobHook: func(_ vertextest.BatchJob, f vertextest.JobFate) vertextest.JobFate { f.Create = fault; return f },
	}})
	b := newBatches(t, s.GRPCAddr())
	for i, test := range []struct {
		fault vertextest.CreateFault
		kind  worker.Kind
		jobs  int
	}{
		{vertextest.CreateLost, worker.Unanswered, 1}, {vertextest.CreateUnavailable, worker.Unanswered, 0}, {vertextest.CreateThrottled, worker.Throttled, 0},
	} {
		fault = test.fault
		id := fmt.Sprint("b-", i)
		_, err := b.Create(t.Context(), batchRequestOf(id))
		var e *worker.CallError
		if !errors.As(err, &e) || e.Kind != test.kind {
			t.Errorf("%d: %v", i, err)
		}
		if found, err := b.Find(t.Context(), batchLane, id); err != nil || len(found) != test.jobs {
			t.Errorf("%d: found %v, %v", i, found, err)
		}
	}
	bad := batchRequestOf("b-9")
	bad.Lane.Model = "gemini-9"
	var e *worker.CallError
	if _, err := b.Create(t.Context(), bad); !errors.As(err, &e) || e.Kind != worker.Denied || e.Status != 404 {
		t.Errorf("no such model: %v", err)
	}
	bad = batchRequestOf("b-9")
	bad.Input = "input.jsonl"
	if _, err := b.Create(t.Context(), bad); !errors.As(err, &e) || e.Kind != worker.Rejected {
		t.Errorf("no such input: %v", err)
	}
}
