package jobs

import (
	"slices"
	"time"
)

// Times of a batch, at the longest. Most batches end in hours; a job that can't wait for the longest must not depend on it.
const (
	// BatchQueueTime is how long Vertex leaves a batch in its queue before it gives it up.
	BatchQueueTime = 72 * time.Hour
	// BatchRunTime is how long Vertex lets a batch run before it cancels the rows that are left.
	BatchRunTime = 24 * time.Hour
	// BatchHandling is our own share: jobs are gathered before, and afterwards up to 200,000 images are collected and rows that failed
	// are called online.
	BatchHandling = 6 * time.Hour
	// BatchTime is how far away a job's deadline must be for a batch.
	BatchTime = BatchQueueTime + BatchRunTime + BatchHandling
)

// InBatch reports whether Vertex makes the job's image in batch mode: whether its model is offered there, and in its size.
func (j *Job) InBatch() bool {
	return j.Model.HasTier(TierBatch) && slices.Contains(j.Model.BatchSizes, j.Size)
}

// FitsBatch reports whether a batch that begins now would do for the job: Vertex makes it in batch mode, and its deadline leaves the
// time. As time goes by the answer can turn from yes to no, and never back.
func (j *Job) FitsBatch(now time.Time) bool {
	return j.InBatch() && (j.Deadline.IsZero() || !j.Deadline.Before(now.Add(BatchTime)))
}
