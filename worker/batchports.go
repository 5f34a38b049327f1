package worker

import "time"

// BatchRequest is what Vertex needs to know to begin a batch prediction job.
type BatchRequest struct {
	ID           string // of the batch; becomes the label by which the job is found again
	Lane         Lane
	Input        string            // gs:// URI of a JSONL file, one request a line
	OutputPrefix string            // gs:// URI of a folder
	Labels       map[string]string // for the bill
}

// BatchState is a state of a batch prediction job, in Vertex's words without the prefix. The set is open: Vertex may add to it.
type BatchState string

// The states that mean something to us.
const (
	BatchQueued    BatchState = "QUEUED"
	BatchPending   BatchState = "PENDING"
	BatchRunning   BatchState = "RUNNING"
	BatchSucceeded BatchState = "SUCCEEDED"
	BatchFailed    BatchState = "FAILED"
	BatchCancelled BatchState = "CANCELLED"
	BatchExpired   BatchState = "EXPIRED"
	BatchPartly    BatchState = "PARTIALLY_SUCCEEDED"
)

// Terminal reports whether a job in this state changes no more.
func (s BatchState) Terminal() bool {
	switch s {
	case BatchSucceeded, BatchFailed, BatchCancelled, BatchExpired, BatchPartly:
		return true
	}
	return false
}

// VertexBatch is what Vertex says of a batch prediction job.
type VertexBatch struct {
	Name      string // projects/…/locations/…/batchPredictionJobs/…
	State     BatchState
	OutputDir string // gs:// URI of the folder that holds the output; empty until Vertex says
	// Created, Started and Ended are by Vertex's clock; zero when it has not happened.
	Created, Started, Ended time.Time
	// Succeeded, Failed and Incomplete count rows, as far as Vertex says.
	Succeeded, Failed, Incomplete int64
	Error                         string // why the job failed, shortened
}

// OutputRow is one line of a batch's output. One of Answer, Err and Damaged is set.
type OutputRow struct {
	Offset, Length int64  // of the line in its file, in bytes
	Hi, Lo         string // the row's labels, as echoed; empty when they are missing
	// Hash identifies the echoed request; it is the zero hash when the line holds none that can be read.
	Hash    [32]byte
	Answer  *Answer    // as of an online call; its image must be released
	Err     *CallError // a row that failed
	Damaged error      // what is wrong with a line that can't be read
}

// Seal is what is known of a batch's seal, the object that decides whether its jobs are its own.
type Seal struct {
	Sealed   bool
	Void     bool   // neither Sealed nor Void: the batch is still being gathered, as far as anybody knows
	Manifest []byte // of a sealed batch
}
