package queue

import (
	"context"
	"fmt"
	"time"

	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
)

const (
	// reviewLease is how long a dead letter that is being looked at is kept from others: as long as one command takes.
	reviewLease = 60 * time.Second
	// reviewBatch is how many dead letters are fetched at a time. They may be 10 MB each.
	reviewBatch = 50
	// quietPulls is how many empty answers in a row mean that there is no more: Pub/Sub may answer empty although there is.
	quietPulls = 2
	// pullTime bounds the wait for one answer, which a service without messages holds back.
	pullTime = 3 * time.Second
)

// MaxReview is how many dead letters one command looks at. Most are some kilobytes.
const MaxReview = 5_000

// DeadLetter is a message that was given up.
type DeadLetter struct {
	ID         string // of the dead letter
	MessageID  string // that it had on its first topic
	Reason     jobs.Reason
	Detail     string
	Died       time.Time // when it was given up
	Data       []byte
	Attributes map[string]string // of the message itself
	ackID      string
}

// DeadLetters is the subscription that keeps what was given up. One command at a time should use it: what one looks at is hidden
// from the others for a minute.
type DeadLetters struct {
	client *pubsub.Client
	name   string
	held   []string // ack ids of what was fetched and neither replayed nor dropped
}

// NewDeadLetters returns the dead letters of the client's project.
func NewDeadLetters(client *pubsub.Client) *DeadLetters {
	return &DeadLetters{client: client, name: "projects/" + client.Project() + "/subscriptions/" + schemas.SubscriptionDead}
}

// Each calls f for each dead letter that is there now, at most [MaxReview] of them. What f returns decides: true removes the
// letter, false keeps it. Letters that are kept are visible again when Each returns. All are fetched before the first is handed to f, so
// that one that is replayed and given up again is not met a second time.
func (d *DeadLetters) Each(ctx context.Context, f func(*DeadLetter) (remove bool, err error)) (err error) {
	defer func() {
		if giveBack := d.giveBack(context.WithoutCancel(ctx)); err == nil {
			err = giveBack
		}
	}()
	letters, err := d.fetch(ctx)
	if err != nil {
		return err
	}
	for _, l := range letters {
		remove, err := f(l)
		if err != nil {
			return err
		}
		if !remove {
			continue
		}
		if err := d.remove(ctx, l); err != nil {
			return err
		}
	}
	return nil
}

func (d *DeadLetters) fetch(ctx context.Context) ([]*DeadLetter, error) {
	var all []*DeadLetter
	for quiet := 0; quiet < quietPulls && len(all) < MaxReview; {
		letters, err := d.pull(ctx)
		if err != nil {
			return nil, err
		}
		if quiet++; len(letters) > 0 {
			quiet = 0
		}
		all = append(all, letters...)
	}
	return all, nil
}

func (d *DeadLetters) pull(ctx context.Context) ([]*DeadLetter, error) {
	pulling, cancel := context.WithTimeout(ctx, pullTime)
	defer cancel()
	resp, err := d.client.SubscriptionAdminClient.Pull(pulling, &pubsubpb.PullRequest{Subscription: d.name, MaxMessages: reviewBatch})
	switch {
	case pulling.Err() != nil && ctx.Err() == nil:
		return nil, nil // nothing came in time
	case err != nil:
		return nil, fmt.Errorf("dead letters: %w", explain(err, "subscription", schemas.SubscriptionDead))
	}
	var letters []*DeadLetter
	var ackIDs []string
	for _, m := range resp.GetReceivedMessages() {
		letters = append(letters, newDeadLetter(m))
		ackIDs = append(ackIDs, m.GetAckId())
	}
	if len(ackIDs) == 0 {
		return nil, nil
	}
	d.held = append(d.held, ackIDs...)
	err = d.client.SubscriptionAdminClient.ModifyAckDeadline(ctx, &pubsubpb.ModifyAckDeadlineRequest{
		Subscription: d.name, AckIds: ackIDs, AckDeadlineSeconds: int32(reviewLease / time.Second),
	})
	if err != nil {
		return nil, fmt.Errorf("dead letters: %w", err)
	}
	return letters, nil
}

// ours are the attributes that bury adds; the rest is the message's own.
var ours = map[string]bool{schemas.AttributeReason: true, schemas.AttributeDetail: true, schemas.AttributeMessageID: true}

func newDeadLetter(m *pubsubpb.ReceivedMessage) *DeadLetter {
	a := m.GetMessage().GetAttributes()
	l := &DeadLetter{
		ID: m.GetMessage().GetMessageId(), MessageID: a[schemas.AttributeMessageID],
		Reason: jobs.Reason(a[schemas.AttributeReason]), Detail: a[schemas.AttributeDetail],
		Died: m.GetMessage().GetPublishTime().AsTime(), Data: m.GetMessage().GetData(), Attributes: map[string]string{}, ackID: m.GetAckId(),
	}
	for k, v := range a {
		if !ours[k] {
			l.Attributes[k] = v
		}
	}
	return l
}

func (d *DeadLetters) remove(ctx context.Context, l *DeadLetter) error {
	err := d.client.SubscriptionAdminClient.Acknowledge(ctx, &pubsubpb.AcknowledgeRequest{Subscription: d.name, AckIds: []string{l.ackID}})
	if err != nil {
		return fmt.Errorf("remove dead letter %s: %w", l.ID, err)
	}
	return nil
}

// giveBack makes everything that was fetched visible again; for what was removed this does nothing.
func (d *DeadLetters) giveBack(ctx context.Context) error {
	const perRequest = 1000 // ack ids in one request; far below Pub/Sub's limit of bytes
	for start := 0; start < len(d.held); start += perRequest {
		ids := d.held[start:min(start+perRequest, len(d.held))]
		err := d.client.SubscriptionAdminClient.ModifyAckDeadline(ctx, &pubsubpb.ModifyAckDeadlineRequest{
			Subscription: d.name, AckIds: ids, AckDeadlineSeconds: 0,
		})
		if err != nil {
			return fmt.Errorf("give dead letters back: %w", err)
		}
	}
	d.held = nil
	return nil
}

// Replay publishes a dead letter, as it first was, to the topic that it came from, and returns when the topic has accepted it.
func (q *Queue) Replay(ctx context.Context, l *DeadLetter) error {
	topic := q.jobs
	if l.Attributes[schemas.AttributeBatch] != "" { // only the hand-off of a batch has it
		topic = q.batches
	}
	_, err := topic.Publish(ctx, &pubsub.Message{Data: l.Data, Attributes: l.Attributes}).Get(ctx)
	if err != nil {
		return fmt.Errorf("replay dead letter %s: %w", l.ID, explain(err, "topic", topic.ID()))
	}
	return nil
}
