package standin

import (
	"context"
	"fmt"
	"path"
	"strconv"
	"sync"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

const (
	// firstLease is how long a message is leased when it is delivered.
	firstLease = 60 * time.Second
	// nackPause is the subscription's shortest back-off: how long a message that was given back rests.
	nackPause = time.Second
	// leaseLook is how often leases are looked at.
	leaseLook = 250 * time.Millisecond
	// maxDelivery bounds the messages of one answer of a stream.
	maxDelivery = 100
)

// QueueStats is what a queue has seen.
type QueueStats struct {
	Published   int `json:"published"` // to any topic
	Acked       int `json:"acked"`
	Redelivered int `json:"redelivered"`
	Waiting     int `json:"waiting"`
	Leased      int `json:"leased"`
}

// Queue serves Pub/Sub's Publisher and Subscriber: at-least-once, with leases, each stream's bound of outstanding messages, and
// messages handed out evenly among the streams that have room. pstest, which Google ships for tests, sends one message every 10 ms on each
// stream, and knows no bound.
//
// Every topic exists. Each subscription receives from the topic that it was created on; messages of a topic without one are counted and
// dropped. Of filters there are those of package schemas; there is no ordering, and there are no dead letters.
type Queue struct {
	pubsubpb.UnimplementedPublisherServer
	pubsubpb.UnimplementedSubscriberServer

	mu            sync.Mutex
	subscriptions map[string]*subscription
	published     int
}

// NewQueue returns a queue without subscriptions.
func NewQueue() *Queue { return &Queue{subscriptions: map[string]*subscription{}} }

// Run gives messages back whose leases have run out, until ctx ends.
func (q *Queue) Run(ctx context.Context) {
	tick := time.NewTicker(leaseLook)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			for _, s := range q.all() {
				s.expire(now)
			}
		case <-ctx.Done():
			return
		}
	}
}

func (q *Queue) all() []*subscription {
	q.mu.Lock()
	defer q.mu.Unlock()
	var all []*subscription
	for _, s := range q.subscriptions {
		all = append(all, s)
	}
	return all
}

// Stats returns what the queue has seen.
func (q *Queue) Stats() QueueStats {
	q.mu.Lock()
	stats := QueueStats{Published: q.published}
	q.mu.Unlock()
	for _, s := range q.all() {
		s.addTo(&stats)
	}
	return stats
}

func (q *Queue) find(name string) (*subscription, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if s := q.subscriptions[name]; s != nil {
		return s, nil
	}
	return nil, status.Errorf(codes.NotFound, "Resource not found (resource=%s).", path.Base(name))
}

// CreateTopic implements pubsubpb.PublisherServer.
func (q *Queue) CreateTopic(_ context.Context, t *pubsubpb.Topic) (*pubsubpb.Topic, error) {
	return t, nil
}

// GetTopic implements pubsubpb.PublisherServer.
func (q *Queue) GetTopic(_ context.Context, req *pubsubpb.GetTopicRequest) (*pubsubpb.Topic, error) {
	return &pubsubpb.Topic{Name: req.GetTopic()}, nil
}

// CreateSubscription implements pubsubpb.SubscriberServer.
func (q *Queue) CreateSubscription(_ context.Context, s *pubsubpb.Subscription) (*pubsubpb.Subscription, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.subscriptions[s.GetName()] != nil {
		return nil, status.Error(codes.AlreadyExists, "Resource already exists in the project.")
	}
	q.subscriptions[s.GetName()] = newSubscription(s)
	return s, nil
}

// GetSubscription implements pubsubpb.SubscriberServer.
func (q *Queue) GetSubscription(_ context.Context, req *pubsubpb.GetSubscriptionRequest) (*pubsubpb.Subscription, error) {
	s, err := q.find(req.GetSubscription())
	if err != nil {
		return nil, err
	}
	return s.resource, nil
}

// Publish implements pubsubpb.PublisherServer.
func (q *Queue) Publish(_ context.Context, req *pubsubpb.PublishRequest) (*pubsubpb.PublishResponse, error) {
	now := timestamppb.Now()
	q.mu.Lock()
	first := q.published
	q.published += len(req.GetMessages())
	q.mu.Unlock()
	resp := &pubsubpb.PublishResponse{}
	for i, m := range req.GetMessages() {
		m.MessageId, m.PublishTime = strconv.Itoa(first+i+1), now
		resp.MessageIds = append(resp.MessageIds, m.GetMessageId())
	}
	for _, s := range q.all() {
		if s.resource.GetTopic() == req.GetTopic() {
			s.add(s.wanted(req.GetMessages()))
		}
	}
	return resp, nil
}

// Acknowledge implements pubsubpb.SubscriberServer.
func (q *Queue) Acknowledge(_ context.Context, req *pubsubpb.AcknowledgeRequest) (*emptypb.Empty, error) {
	s, err := q.find(req.GetSubscription())
	if err == nil {
		s.ack(req.GetAckIds())
	}
	return &emptypb.Empty{}, err
}

// ModifyAckDeadline implements pubsubpb.SubscriberServer.
func (q *Queue) ModifyAckDeadline(_ context.Context, req *pubsubpb.ModifyAckDeadlineRequest) (*emptypb.Empty, error) {
	s, err := q.find(req.GetSubscription())
	if err == nil {
		s.modify(req.GetAckIds(), time.Duration(req.GetAckDeadlineSeconds())*time.Second)
	}
	return &emptypb.Empty{}, err
}

// StreamingPull implements pubsubpb.SubscriberServer.
func (q *Queue) StreamingPull(server pubsubpb.Subscriber_StreamingPullServer) error {
	req, err := server.Recv()
	if err != nil {
		return err
	}
	sub, err := q.find(req.GetSubscription())
	if err != nil {
		return err
	}
	s := &stream{most: int(req.GetMaxOutstandingMessages()), signal: make(chan struct{}, 1)}
	sub.open(s)
	defer sub.close(s)
	received := make(chan error, 1)
	go func() { received <- sub.listen(server, s) }()
	for {
		select {
		case <-s.signal:
		case err := <-received:
			return err
		}
		for _, answer := range sub.pending(s) {
			if err := server.Send(answer); err != nil {
				return fmt.Errorf("deliver: %w", err)
			}
		}
	}
}
