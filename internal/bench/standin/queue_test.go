package standin

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/assetmill/assetmill/schemas"
)

const (
	testTopic        = "projects/p/topics/t"
	testSubscription = "projects/p/subscriptions/s"
)

func messages(n int) (all []*pubsubpb.PubsubMessage) {
	for i := range n {
		all = append(all, &pubsubpb.PubsubMessage{Data: fmt.Append(nil, i)})
	}
	return all
}

// ids takes what a stream is to send, and returns the ack ids.
func ids(s *subscription, st *stream) (all []string) {
	for _, answer := range s.pending(st) {
		for _, m := range answer.GetReceivedMessages() {
			all = append(all, m.GetAckId())
		}
	}
	return all
}

func TestStreamsGetNoMoreThanTheyTake(t *testing.T) {
	t.Parallel()
	s := newSubscription(&pubsubpb.Subscription{})
	a, b := &stream{most: 2, signal: make(chan struct{}, 1)}, &stream{most: 3, signal: make(chan struct{}, 1)}
	s.open(a)
	s.open(b)
	s.add(messages(10))
	inA, inB := ids(s, a), ids(s, b)
	if len(inA) != 2 || len(inB) != 3 {
		t.Fatalf("%d and %d messages were handed out", len(inA), len(inB))
	}
	s.ack(inA[:1])
	s.modify(inB[:1], 0)
	if moreA, moreB := ids(s, a), ids(s, b); len(moreA) != 1 || len(moreB) != 1 {
		t.Errorf("%d and %d took the place of one each", len(moreA), len(moreB))
	}
	s.ack(inA[:1]) // a second time
	if more := ids(s, a); len(more) != 0 {
		t.Errorf("a repeated acknowledgement made room for %d", len(more))
	}
}

func TestAStreamWithoutABoundTakesAll(t *testing.T) {
	t.Parallel()
	s := newSubscription(&pubsubpb.Subscription{})
	s.add(messages(5 * maxDelivery / 2))
	st := &stream{signal: make(chan struct{}, 1)}
	s.open(st)
	var sizes []int
	for _, answer := range s.pending(st) {
		sizes = append(sizes, len(answer.GetReceivedMessages()))
	}
	if fmt.Sprint(sizes) != fmt.Sprint([]int{maxDelivery, maxDelivery, maxDelivery / 2}) {
		t.Errorf("delivered in portions of %d", sizes)
	}
}

func TestLeases(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue()
		if _, err := q.CreateSubscription(t.Context(), &pubsubpb.Subscription{Name: testSubscription, Topic: testTopic}); err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { q.Run(ctx) })
		defer running.Wait()
		defer stop()
		if _, err := q.Publish(ctx, &pubsubpb.PublishRequest{Topic: testTopic, Messages: messages(3)}); err != nil {
			t.Fatal(err)
		}
		s, err := q.find(testSubscription)
		if err != nil {
			t.Fatal(err)
		}
		st := &stream{signal: make(chan struct{}, 1)}
		s.open(st)
		got := ids(s, st)
		s.ack(got[:1])
		s.modify(got[1:2], 2*firstLease)
		time.Sleep(firstLease + time.Second)
		if back := ids(s, st); len(back) != 1 {
			t.Fatalf("%d leases ran out instead of one", len(back))
		} else {
			s.modify(back, 0)
		}
		time.Sleep(nackPause / 2)
		if back := ids(s, st); len(back) != 0 {
			t.Error("a message that was given back did not rest")
		}
		time.Sleep(nackPause)
		if back := ids(s, st); len(back) != 1 {
			t.Errorf("%d messages came back instead of one", len(back))
		}
		if got := q.Stats(); got != (QueueStats{Published: 3, Acked: 1, Redelivered: 2, Leased: 2}) {
			t.Errorf("counted %+v", got)
		}
	})
}

func TestFilters(t *testing.T) {
	t.Parallel()
	q := NewQueue()
	for name, filter := range map[string]string{"online": schemas.OnlineFilter, "batch": schemas.BatchFilter, "all": ""} {
		if _, err := q.CreateSubscription(t.Context(), &pubsubpb.Subscription{Name: name, Topic: testTopic, Filter: filter}); err != nil {
			t.Fatal(err)
		}
	}
	all := messages(4)
	all[0].Attributes = map[string]string{schemas.AttributeMode: "batch"}
	all[1].Attributes = map[string]string{schemas.AttributeMode: "online"}
	if _, err := q.Publish(t.Context(), &pubsubpb.PublishRequest{Topic: testTopic, Messages: all}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int{"online": 3, "batch": 1, "all": 4} {
		if s, err := q.find(name); err != nil || len(s.ready) != want {
			t.Errorf("%s: %d messages instead of %d: %v", name, len(s.ready), want, err)
		}
	}
}

// Google's client receives everything, with its own flow control, acknowledgements and pings.
func TestQueueServesTheClient(t *testing.T) {
	t.Parallel()
	const jobs = 500
	q := NewQueue()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer()
	pubsubpb.RegisterPublisherServer(srv, q)
	pubsubpb.RegisterSubscriberServer(srv, q)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	t.Cleanup(func() { srv.Stop(); <-served })
	client, err := pubsub.NewClient(t.Context(), "p", option.WithEndpoint(l.Addr().String()), option.WithoutAuthentication(),
		option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	if _, err := client.SubscriptionAdminClient.CreateSubscription(t.Context(), &pubsubpb.Subscription{Name: testSubscription, Topic: testTopic}); err != nil {
		t.Fatal(err)
	}
	publisher := client.Publisher("t")
	for i := range jobs {
		publisher.Publish(t.Context(), &pubsub.Message{Data: fmt.Append(nil, i)})
	}
	publisher.Stop()
	ctx, stop := context.WithCancel(t.Context())
	sub := client.Subscriber("s")
	sub.ReceiveSettings.NumGoroutines, sub.ReceiveSettings.MaxOutstandingMessages = 3, 10
	var mu sync.Mutex
	seen := map[string]int{}
	err = sub.Receive(ctx, func(_ context.Context, m *pubsub.Message) {
		mu.Lock()
		defer mu.Unlock()
		if seen[string(m.Data)]++; len(seen) == jobs {
			stop()
		}
		m.Ack()
	})
	stop()
	if err != nil || len(seen) != jobs {
		t.Errorf("%d of %d messages: %v", len(seen), jobs, err)
	}
	if got := q.Stats(); got.Published != jobs || got.Acked != jobs {
		t.Errorf("counted %+v", got)
	}
}
