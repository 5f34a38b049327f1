package batchtest

import (
	"context"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
	"github.com/assetmill/assetmill/worker/workertest"
)

// Queue is the topics of jobs and hand-offs in memory, with the subscriptions that workers read.
type Queue struct {
	Online, Batch, Handoffs *workertest.Queue
}

// NewQueue returns empty topics.
func NewQueue() *Queue {
	return &Queue{workertest.NewQueue(), workertest.NewQueue(), workertest.NewQueue()}
}

// PublishAgain implements batch.Queue.
func (q *Queue) PublishAgain(ctx context.Context, j *jobs.Job) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	data, err := schemas.Marshal(j.Message())
	if err != nil {
		return err
	}
	to := q.Online
	if j.Mode == jobs.Batch {
		to = q.Batch
	}
	to.Publish(data, map[string]string{schemas.AttributeMode: string(j.Mode)})
	return nil
}

// PublishHandoff implements batch.Queue.
func (q *Queue) PublishHandoff(ctx context.Context, h *schemas.BatchHandoff) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	data, err := schemas.Marshal(h)
	if err != nil {
		return err
	}
	q.Handoffs.Publish(data, map[string]string{schemas.AttributeBatch: h.GetBatchId()})
	return nil
}
