package vertextest

import (
	"encoding/binary"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"sync"

	"cloud.google.com/go/aiplatform/apiv1/aiplatformpb"
)

// maxBatchJobs bounds how many jobs are remembered; beyond it the oldest final ones are forgotten.
const maxBatchJobs = 10_000

// batchStore holds the jobs.
type batchStore struct {
	mu   sync.Mutex
	seq  int
	jobs []*batchJob // in order of creation
}

// next numbers a new job.
func (b *batchStore) next() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.seq++
	return b.seq
}

func (b *batchStore) add(j *batchJob) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.jobs) >= maxBatchJobs {
		if i := slices.IndexFunc(b.jobs, (*batchJob).isFinal); i >= 0 {
			b.jobs = slices.Delete(b.jobs, i, i+1)
		}
	}
	b.jobs = append(b.jobs, j)
}

func (b *batchStore) remove(j *batchJob) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.jobs = slices.DeleteFunc(b.jobs, func(other *batchJob) bool { return other == j })
}

// all returns the jobs in order of creation.
func (b *batchStore) all() []*batchJob {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.jobs)
}

var (
	batchName   = regexp.MustCompile(`^projects/([^/]+)/locations/([^/]+)/batchPredictionJobs/([^/:]+)$`)
	batchParent = regexp.MustCompile(`^projects/([^/]+)/locations/([^/]+)$`)
)

// find returns the job of a resource name, which may have the project's id or number.
func (s *Server) findBatch(name string) (*batchJob, *apiError) {
	m := batchName.FindStringSubmatch(name)
	if m == nil {
		return nil, invalid("Invalid resource field value in the request: %q", name)
	}
	for _, j := range s.batches.all() {
		if j.id() == m[3] && j.info.Location == m[2] && sameProject(j.info.Project, m[1]) {
			return j, nil
		}
	}
	e := statusError(http.StatusNotFound)
	e.Message = fmt.Sprintf("The BatchPredictionJob does not exist: %s", name)
	return nil, e
}

// sameProject compares projects by id or number.
func sameProject(a, b string) bool { return projectNumber(a) == projectNumber(b) }

// projectNumber returns the number that the service puts into resource names,
// whatever the caller put there.
func projectNumber(project string) string {
	if _, err := strconv.ParseUint(project, 10, 64); err == nil {
		return project
	}
	d := newDice(0, []byte(project), 0)
	return strconv.FormatUint(100_000_000_000+binary.BigEndian.Uint64(d.key[:])%900_000_000_000, 10)
}

// jobID is a number like the service's: long, and in no order.
func jobID(seed uint64, seq int) string {
	d := newDice(seed, []byte("batch job"), seq)
	return strconv.FormatUint(1_000_000_000_000_000_000+binary.BigEndian.Uint64(d.key[:])%8_000_000_000_000_000_000, 10)
}

// BatchJobs returns all jobs in order of creation, also those whose creation
// was answered with an error. Deleted ones are gone.
func (s *Server) BatchJobs() []BatchJob {
	var out []BatchJob
	for _, j := range s.batches.all() {
		out = append(out, j.snapshot())
	}
	return out
}

// batchStep is one step of a job under Config.Batch.Manual.
type batchStep struct {
	rows int
	done chan struct{}
}

// StepBatch takes the job of that name one step further, with
// [Batch.Manual], and returns when that is done: from QUEUED to PENDING, from
// there to RUNNING, and then through so many rows more, 0 for all that are
// left. A job that is stuck or final stays as it is.
func (s *Server) StepBatch(name string, rows int) error {
	j, e := s.findBatch(name)
	if e != nil {
		return e
	}
	step := &batchStep{rows: rows, done: make(chan struct{})}
	select {
	case j.steps <- step:
	case <-j.ended:
		return nil
	case <-s.base.Done():
		return errClosed
	}
	select {
	case <-step.done:
	case <-j.ended:
	case <-s.base.Done():
		return errClosed
	}
	return nil
}

// ExpireBatch makes the job of that name expire now, and returns when it has.
func (s *Server) ExpireBatch(name string) error {
	j, e := s.findBatch(name)
	if e != nil {
		return e
	}
	j.stop(aiplatformpb.JobState_JOB_STATE_EXPIRED, s.now())
	select {
	case <-j.ended:
		return nil
	case <-s.base.Done():
		return errClosed
	}
}
