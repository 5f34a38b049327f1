package queue

import (
	"context"
	"maps"
	"time"

	"cloud.google.com/go/pubsub/v2"
	"go.uber.org/zap"

	"github.com/assetmill/assetmill/internal/retry"
	"github.com/assetmill/assetmill/schemas"
)

// renewAfter is the number of deliveries after which a message that is given back on purpose is published anew.
//
// Pub/Sub counts each delivery and, after 100 at most, moves the message to the dead letters without a reason. That is meant for messages that
// kill whoever takes them. A job that waits, because its campaign is paused or there is no quota, would come to the same end: at ten minutes between deliveries,
// in 16 hours. Half of the 100 leaves room for deliveries in which nobody comes to a verdict, and each renewal costs the subscription's growing
// pauses, so that it should be rare.
const renewAfter = 50

// renew publishes a message once more and then acknowledges it, and reports whether it did. Should the acknowledgement be lost, there are two of it:
// the ledger makes one of them. A message that kills its worker never gets here.
func (q *Queue) renew(receiving, work context.Context, topic *pubsub.Publisher, m *pubsub.Message, pause time.Duration) bool {
	if retry.Sleep(receiving, min(pause, maxRetryPause)) != nil {
		return false // the worker stops
	}
	a := maps.Clone(m.Attributes)
	if a == nil {
		a = map[string]string{}
	}
	a[schemas.AttributePublished] = firstPublished(m).Format(time.RFC3339Nano)
	if _, err := topic.Publish(work, &pubsub.Message{Data: m.Data, Attributes: a}).Get(work); err != nil {
		q.cfg.Log.Warn("a message that has waited for long could not be published anew; Pub/Sub will take it for a dead letter after 100 deliveries",
			zap.String("message_id", m.ID), zap.Int("deliveries", *m.DeliveryAttempt), zap.Error(explain(err, "topic", topic.ID())))
		return false
	}
	m.Ack()
	return true
}

// firstPublished is when the topic accepted the message for the first time.
func firstPublished(m *pubsub.Message) time.Time {
	if t, err := time.Parse(time.RFC3339Nano, m.Attributes[schemas.AttributePublished]); err == nil && t.Before(m.PublishTime) {
		return t
	}
	return m.PublishTime
}
