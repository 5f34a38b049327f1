package queue

import (
	"context"
	"errors"
	"fmt"

	"cloud.google.com/go/pubsub/v2"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
)

// PublishHandoff hands a batch, or a range of its output, to whichever worker takes it. It returns when the topic has accepted the message.
func (q *Queue) PublishHandoff(ctx context.Context, h *schemas.BatchHandoff) error {
	data, err := schemas.Marshal(h)
	if err != nil {
		return fmt.Errorf("hand off batch %s: %w", h.GetBatchId(), err)
	}
	_, err = q.batches.Publish(ctx, &pubsub.Message{Data: data, Attributes: map[string]string{schemas.AttributeBatch: h.GetBatchId()}}).Get(ctx)
	if err != nil {
		return fmt.Errorf("hand off batch %s: %w", h.GetBatchId(), explain(err, "topic", schemas.TopicBatches))
	}
	return nil
}

// PublishAgain sends a job to the topic once more, and returns when the topic has accepted it.
func (q *Queue) PublishAgain(ctx context.Context, j *jobs.Job) error {
	wait, err := q.PublishJob(ctx, j)
	if err != nil {
		return err
	}
	return wait(ctx)
}

// ReceiveHandoffs does for the hand-offs of batches what Receive does for jobs. Config.Mode means nothing to it.
func (q *Queue) ReceiveHandoffs(ctx context.Context, handle func(context.Context, *jobs.Delivery) jobs.Verdict) error {
	return q.receive(ctx, schemas.SubscriptionBatches, q.batches, func(*pubsub.Message) bool { return true }, handle)
}

// CheckHandoffs does for hand-offs what Check and CheckSubscription do for jobs.
func (q *Queue) CheckHandoffs(ctx context.Context) error {
	return errors.Join(q.Check(ctx, schemas.TopicBatches), q.checkSubscription(ctx, schemas.SubscriptionBatches))
}
