package vertextest

import (
	"crypto/sha256"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"cloud.google.com/go/aiplatform/apiv1/aiplatformpb"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// BatchJob is what a batch prediction job has come to, as a test sees it: more
// than the service tells.
type BatchJob struct {
	// Name is the resource name, with the project's number.
	Name, DisplayName        string
	Project, Location, Model string
	Labels                   map[string]string
	// State is a name such as JOB_STATE_RUNNING; Error is set on failure.
	State, Error string
	// Input is the URI of the input, OutputDir that of the folder of the output,
	// Files those of the output files that are visible.
	Input, OutputDir string
	Files            []string
	// Rows of the input, and what became of them: Carried are those of Successful
	// that an earlier job had done. Incomplete are those of no other kind.
	Rows, Successful, Failed, Incomplete, Carried int
	// Missing, Lost and Damaged rows, as [BatchFaults] has them; Duplicates are
	// rows beyond the first of a request and Orphans those that nobody asked for.
	Missing, Lost, Damaged, Duplicates, Orphans int
	// Exported counts the lines of all files. Billed are the images in the call log.
	Exported, Billed int
	// Created, Started and Ended are zero as long as they are to come.
	Created, Started, Ended time.Time
}

// batchJob is a job and what moves it. Everything below mu is guarded by it.
type batchJob struct {
	seq     int // order of creation, from 1
	model   *Model
	in, out location
	content [sha256.Size]byte // of what was asked
	fate    JobFate
	steps   chan *batchStep
	stopped chan struct{} // closed by stop
	ended   chan struct{} // closed when the job is final

	mu       sync.Mutex
	pb       *aiplatformpb.BatchPredictionJob // without completionStats, which info has
	info     BatchJob
	stopWith aiplatformpb.JobState // set once, with stopped
}

// location is a place in Cloud Storage.
type location struct{ bucket, name string }

func (l location) uri() string { return "gs://" + l.bucket + "/" + l.name }

// snapshot returns the job for a test.
func (j *batchJob) snapshot() BatchJob {
	j.mu.Lock()
	defer j.mu.Unlock()
	out := j.info
	out.Incomplete = out.Rows - out.Successful - out.Failed
	out.State = j.pb.State.String()
	out.Error = j.pb.GetError().GetMessage()
	out.Labels = maps.Clone(j.info.Labels)
	out.Files = slices.Clone(j.info.Files)
	return out
}

// proto returns the job for a caller.
func (j *batchJob) proto() *aiplatformpb.BatchPredictionJob {
	info := j.snapshot()
	j.mu.Lock()
	defer j.mu.Unlock()
	out := proto.Clone(j.pb).(*aiplatformpb.BatchPredictionJob)
	if info.Rows > 0 {
		out.CompletionStats = &aiplatformpb.CompletionStats{
			SuccessfulCount: int64(info.Successful), FailedCount: int64(info.Failed), IncompleteCount: int64(info.Incomplete),
		}
	}
	return out
}

// update changes the counts.
func (j *batchJob) update(f func(*BatchJob)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	f(&j.info)
}

// enter puts the job into a state that is not final.
func (j *batchJob) enter(state aiplatformpb.JobState, now time.Time) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.pb.State == aiplatformpb.JobState_JOB_STATE_CANCELLING {
		return // a stop that came first
	}
	j.pb.State = state
	j.pb.UpdateTime = timestamppb.New(now)
	if state == aiplatformpb.JobState_JOB_STATE_RUNNING {
		j.pb.StartTime = j.pb.UpdateTime
		j.info.Started = now
	}
}

// tellOutput shows where the output is.
func (j *batchJob) tellOutput(dir string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.info.OutputDir = dir
	j.pb.OutputInfo = &aiplatformpb.BatchPredictionJob_OutputInfo{
		OutputLocation: &aiplatformpb.BatchPredictionJob_OutputInfo_GcsOutputDirectory{GcsOutputDirectory: dir},
	}
}

// addFailure notes one of the first failures.
func (j *batchJob) addFailure(e *apiError) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.pb.PartialFailures) < maxPartialFailures {
		j.pb.PartialFailures = append(j.pb.PartialFailures, e.status())
	}
}

func (e *apiError) status() *statuspb.Status {
	_, code, _ := canonical(e.Code)
	return &statuspb.Status{Code: int32(code), Message: e.Message}
}

// finish puts the job into its last state.
func (j *batchJob) finish(state aiplatformpb.JobState, err *apiError, now time.Time) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.pb.State = state
	j.pb.UpdateTime = timestamppb.New(now)
	j.pb.EndTime = j.pb.UpdateTime
	j.info.Ended = now
	if err != nil {
		j.pb.Error = err.status()
	}
	close(j.ended)
}

// isFinal reports whether nothing changes any more.
func (j *batchJob) isFinal() bool {
	select {
	case <-j.ended:
		return true
	default:
		return false
	}
}

// stop ends the job early in the given state. It reports whether the job could
// still be stopped.
func (j *batchJob) stop(state aiplatformpb.JobState, now time.Time) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.isFinal() {
		return false
	}
	if j.stopWith != 0 {
		return true
	}
	j.stopWith = state
	if state == aiplatformpb.JobState_JOB_STATE_CANCELLED {
		j.pb.State = aiplatformpb.JobState_JOB_STATE_CANCELLING
		j.pb.UpdateTime = timestamppb.New(now)
	}
	close(j.stopped)
	return true
}

// id is the last part of the name.
func (j *batchJob) id() string { return j.info.Name[strings.LastIndexByte(j.info.Name, '/')+1:] }
