// Package queue is both ends of Pub/Sub: it publishes jobs, results and dead letters, and it receives jobs for a handler
// whose verdict decides what becomes of each message. Only this package acknowledges, so nothing can be acknowledged before its
// handler has returned.
//
// Delivery is at least once, on purpose: Pub/Sub's exactly-once delivery costs two orders of magnitude of throughput and
// still lets publishers duplicate. The ledger makes effects happen once. Correctness needs neither ordering nor filters nor
// the subscription's retry policy, since the emulators lack one or the other.
package queue

import (
	"context"
	"fmt"
	"time"

	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/assetmill/assetmill/internal/retry"
	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
)

// Bounds of receiving.
const (
	// leasePerExtension is how long each extension keeps a message, and so how long a killed worker's messages stay out of reach; the
	// ledger takes as long to find out that the worker is dead. The client renews 5 s before the end, whatever the length, and
	// its default follows the 99th percentile of past work down to 10 s, renewed every 5: on a starved CPU extensions then
	// come too late, and calls of 7 to 60 s are delivered twice with no fault at all. A lease that lapses all the same costs a
	// look into the ledger, not a call.
	leasePerExtension = 20 * time.Second
	// maxLease ends the extensions of one message. It is beyond the longest that a handler may hold one: its waiting bound,
	// and one call of ten minutes.
	maxLease = 60 * time.Minute
	// maxOutstandingBytes bounds the messages in memory. A job is some kilobytes; this holds the 10 MB messages that Pub/Sub
	// accepts without letting them fill the machine.
	maxOutstandingBytes = 256 << 20
	// maxRetryPause bounds how long a message waits here before it is given back. The subscription's retry policy is what
	// spaces redeliveries; this keeps a queue without one from spinning.
	maxRetryPause = 10 * time.Second
)

// Bounds of publishing. 1,000 messages a request is Pub/Sub's limit; jobs of 1 KB make requests of about a megabyte.
const (
	publishBatch       = 500
	publishDelay       = 20 * time.Millisecond
	publishOutstanding = 10_000
	publishBytes       = 64 << 20
	publishTimeout     = 60 * time.Second
)

// Config is what a Queue needs to know. Zero Streams and MaxMessages stand for 1.
type Config struct {
	Mode        jobs.Mode   // whose subscription to receive from
	MaxMessages int         // messages handled at a time
	Streams     int         // StreamingPull streams; one carries about 10 MB/s
	Log         *zap.Logger // nil: none
	// Tracer begins the traces of published jobs. Nil: jobs begin none, and a context's own trace still travels with what is published.
	Tracer trace.Tracer
}

// Queue is a project's topics and one of its subscriptions. It is safe for concurrent use. Close it to flush what was published.
type Queue struct {
	client  *pubsub.Client
	cfg     Config
	jobs    *pubsub.Publisher
	dead    *pubsub.Publisher
	results *pubsub.Publisher
	batches *pubsub.Publisher
}

// New returns the queue of the client's project. The client stays the caller's to close.
func New(client *pubsub.Client, cfg Config) *Queue {
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	if cfg.Tracer == nil {
		cfg.Tracer = noop.Tracer{}
	}
	return &Queue{
		client:  client,
		cfg:     cfg,
		jobs:    publisher(client, schemas.TopicJobs),
		dead:    publisher(client, schemas.TopicDead),
		results: publisher(client, schemas.TopicResults),
		batches: publisher(client, schemas.TopicBatches),
	}
}

func publisher(client *pubsub.Client, topic string) *pubsub.Publisher {
	p := client.Publisher(topic)
	p.PublishSettings.CountThreshold = publishBatch
	p.PublishSettings.DelayThreshold = publishDelay
	p.PublishSettings.Timeout = publishTimeout
	p.PublishSettings.FlowControlSettings = pubsub.FlowControlSettings{
		MaxOutstandingMessages: publishOutstanding,
		MaxOutstandingBytes:    publishBytes,
		LimitExceededBehavior:  pubsub.FlowControlBlock,
	}
	return p
}

// Close flushes what was published and waits for it.
func (q *Queue) Close() {
	q.jobs.Stop()
	q.dead.Stop()
	q.results.Stop()
	q.batches.Stop()
}

// PublishJob sends a job to the topic, blocking while too much is on its way. The function that it returns waits until the
// topic has accepted the job; call it once. ctx's trace, or a new one of Config.Tracer, travels with the job.
func (q *Queue) PublishJob(ctx context.Context, j *jobs.Job) (wait func(context.Context) error, err error) {
	data, err := schemas.Marshal(j.Message())
	if err != nil {
		return nil, fmt.Errorf("publish job %s: %w", j.ID, err)
	}
	ctx, span := q.publishing(ctx, j)
	a := attributes{schemas.AttributeMode: string(j.Mode)}
	a.inject(ctx)
	sent := q.jobs.Publish(ctx, &pubsub.Message{Data: data, Attributes: a})
	return func(ctx context.Context) error {
		messageID, err := sent.Get(ctx)
		published(span, messageID, err)
		if err != nil {
			return fmt.Errorf("publish job %s: %w", j.ID, explain(err, "topic", schemas.TopicJobs))
		}
		return nil
	}, nil
}

// Publish announces a result and returns when the topic has accepted it. ctx's trace travels with it.
func (q *Queue) Publish(ctx context.Context, r *schemas.JobResult) error {
	data, err := schemas.Marshal(r)
	if err != nil {
		return fmt.Errorf("publish result of %s: %w", r.GetJobId(), err)
	}
	a := attributes{
		"job_id": r.GetJobId(), "submission": r.GetSubmission(), "campaign": r.GetCampaign(), "outcome": r.GetOutcome(),
	}
	a.inject(ctx)
	_, err = q.results.Publish(ctx, &pubsub.Message{Data: data, Attributes: a}).Get(ctx)
	if err != nil {
		return fmt.Errorf("publish result of %s: %w", r.GetJobId(), explain(err, "topic", schemas.TopicResults))
	}
	return nil
}

func (q *Queue) subscriptionID() string {
	if q.cfg.Mode == jobs.Batch {
		return schemas.SubscriptionBatch
	}
	return schemas.SubscriptionOnline
}

// Receive implements worker.Queue. It returns an error when the subscription can't be received from. The context that handle gets carries
// the trace of whoever published the message.
func (q *Queue) Receive(ctx context.Context, handle func(context.Context, *jobs.Delivery) jobs.Verdict) error {
	return q.receive(ctx, q.subscriptionID(), q.jobs, func(m *pubsub.Message) bool {
		// The other subscription has its own copy; filters should have kept this one away, but one emulator has none.
		batch := m.Attributes[schemas.AttributeMode] == string(jobs.Batch)
		return batch == (q.cfg.Mode == jobs.Batch)
	}, handle)
}

// receive hands the messages of a subscription to topic that are for this queue to handle, and forgets the others.
func (q *Queue) receive(ctx context.Context, subscription string, topic *pubsub.Publisher, ours func(*pubsub.Message) bool, handle func(context.Context, *jobs.Delivery) jobs.Verdict) error {
	sub := q.client.Subscriber(subscription)
	messages := max(q.cfg.MaxMessages, 1)
	perStream, streams := share(messages, q.cfg.Streams)
	sub.ReceiveSettings = pubsub.ReceiveSettings{
		MaxExtension:               maxLease,
		MinDurationPerAckExtension: leasePerExtension,
		MaxDurationPerAckExtension: leasePerExtension,
		// Per stream, so that the service sends no more than is handled. Otherwise each stream leases as many as all of them
		// may handle, and the rest waits here while other workers are idle.
		EnablePerStreamFlowControl: true,
		MaxOutstandingMessages:     perStream,
		MaxOutstandingBytes:        maxOutstandingBytes / streams,
		NumGoroutines:              streams,
		// Wait for the handlers, however long: they bound their own time after ctx has ended. A time-out here would cancel the
		// streams first, and with them what sends acknowledgements: in client v2.8.1 every verdict given during the stop is
		// then lost, and its message delivered again.
		ShutdownOptions: &pubsub.ShutdownOptions{Behavior: pubsub.ShutdownBehaviorWaitForProcessing, Timeout: -1},
	}
	err := sub.Receive(ctx, func(callback context.Context, m *pubsub.Message) {
		if !ours(m) {
			m.Ack()
			return
		}
		q.deliver(ctx, context.WithoutCancel(callback), topic, m, handle)
	})
	if err != nil {
		return fmt.Errorf("receive: %w", explain(err, "subscription", subscription))
	}
	return nil
}

// share divides messages among at most so many streams, evenly. All streams together never take more: each message that is handled holds
// a claim, and what is held beyond the calls that can be made waits for nothing. They may take a few less.
func share(messages, streams int) (perStream, used int) {
	streams = min(max(streams, 1), messages)
	down, up := messages/streams, (messages+streams-1)/streams
	if down*streams >= messages/up*up {
		return down, streams
	}
	return up, messages / up
}

// deliver hands one message of topic to the handler and carries out its verdict. receiving ends when the worker stops; work does not.
func (q *Queue) deliver(receiving, work context.Context, topic *pubsub.Publisher, m *pubsub.Message, handle func(context.Context, *jobs.Delivery) jobs.Verdict) {
	v := handle(attributes(m.Attributes).extract(work), &jobs.Delivery{ID: m.ID, Data: m.Data, Attributes: m.Attributes, Published: firstPublished(m)})
	switch v.Action {
	case jobs.Ack:
		m.Ack()
	case jobs.Dead:
		if err := q.bury(work, m, v); err != nil {
			q.cfg.Log.Warn("a dead letter could not be published; its message will be delivered again",
				zap.String("message_id", m.ID), zap.Error(err))
			q.giveBack(receiving, m, maxRetryPause)
			return
		}
		m.Ack()
	default:
		if m.DeliveryAttempt != nil && *m.DeliveryAttempt >= renewAfter && q.renew(receiving, work, topic, m, v.After) {
			return
		}
		q.giveBack(receiving, m, v.After)
	}
}

// giveBack returns a message to the subscription after a pause, at once when the worker stops.
func (q *Queue) giveBack(receiving context.Context, m *pubsub.Message, pause time.Duration) {
	_ = retry.Sleep(receiving, min(pause, maxRetryPause)) // however it ends, the message goes back
	m.Nack()
}

// bury publishes the message, unchanged, to the dead-letter topic with its reason.
func (q *Queue) bury(ctx context.Context, m *pubsub.Message, v jobs.Verdict) error {
	attributes := map[string]string{
		schemas.AttributeReason:    string(v.Reason),
		schemas.AttributeDetail:    jobs.Cut(v.Detail, maxAttributeBytes),
		schemas.AttributeMessageID: m.ID,
	}
	for k, value := range m.Attributes {
		if _, ours := attributes[k]; !ours {
			attributes[k] = value
		}
	}
	_, err := q.dead.Publish(ctx, &pubsub.Message{Data: m.Data, Attributes: attributes}).Get(ctx)
	if err != nil {
		return explain(err, "topic", schemas.TopicDead)
	}
	return nil
}

// maxAttributeBytes is Pub/Sub's limit for an attribute's value.
const maxAttributeBytes = 1024

// Check returns an error that says what to do when a topic or the subscription is missing. A caller that may use them but not
// look them up passes: Pub/Sub's publisher and subscriber roles do not include looking.
func (q *Queue) Check(ctx context.Context, topics ...string) error {
	project := "projects/" + q.client.Project()
	for _, t := range topics {
		_, err := q.client.TopicAdminClient.GetTopic(ctx, &pubsubpb.GetTopicRequest{Topic: project + "/topics/" + t})
		if err != nil && status.Code(err) != codes.PermissionDenied {
			return explain(err, "topic", t)
		}
	}
	return nil
}

// CheckSubscription does for the subscription what Check does for topics.
func (q *Queue) CheckSubscription(ctx context.Context) error {
	return q.checkSubscription(ctx, q.subscriptionID())
}

func (q *Queue) checkSubscription(ctx context.Context, id string) error {
	name := "projects/" + q.client.Project() + "/subscriptions/" + id
	_, err := q.client.SubscriptionAdminClient.GetSubscription(ctx, &pubsubpb.GetSubscriptionRequest{Subscription: name})
	if err != nil && status.Code(err) != codes.PermissionDenied {
		return explain(err, "subscription", id)
	}
	return nil
}

// explain adds to an error of Pub/Sub what to do about it.
func explain(err error, what, name string) error {
	switch status.Code(err) {
	case codes.NotFound:
		return fmt.Errorf("%s %s does not exist: create it, or set ASSETMILL_PROJECT to the project that has it: %w", what, name, err)
	case codes.PermissionDenied, codes.Unauthenticated:
		role := "roles/pubsub.publisher"
		if what == "subscription" {
			role = "roles/pubsub.subscriber"
		}
		return fmt.Errorf("%s %s may not be used: grant this account %s on it: %w", what, name, role, err)
	default:
		return fmt.Errorf("%s %s: %w", what, name, err)
	}
}
