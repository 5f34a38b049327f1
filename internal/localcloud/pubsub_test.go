package localcloud

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/assetmill/assetmill/schemas"
)

// testClock is a time of day that moves when it is told to.
type testClock struct{ offset atomic.Int64 }

func (c *testClock) now() time.Time          { return time.Now().Add(time.Duration(c.offset.Load())) }
func (c *testClock) advance(d time.Duration) { c.offset.Add(int64(d)) }

func startTestPubSub(t *testing.T) (*pubsub.Client, *testClock) {
	t.Helper()
	l, err := Ports{}.listen(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	clock := &testClock{}
	s := startPubSub(l, clock.now)
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	for range 2 { // the second time there is nothing to do
		if err := ensureTopics(t.Context(), l.Addr().String()); err != nil {
			t.Fatal(err)
		}
	}
	return pubsubClient(t, l.Addr().String()), clock
}

func pubsubClient(t *testing.T, addr string) *pubsub.Client {
	t.Helper()
	client, err := pubsub.NewClient(t.Context(), Project, option.WithEndpoint(addr), option.WithoutAuthentication(),
		option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func publish(t *testing.T, client *pubsub.Client, topic string, messages ...*pubsubpb.PubsubMessage) error {
	t.Helper()
	_, err := client.TopicAdminClient.Publish(t.Context(), &pubsubpb.PublishRequest{Topic: topicName(topic), Messages: messages})
	return err
}

// pull returns what a subscription has for delivery, waiting half a second for it.
func pull(t *testing.T, client *pubsub.Client, subscription string) []*pubsubpb.ReceivedMessage {
	t.Helper()
	resp, err := client.SubscriptionAdminClient.Pull(t.Context(), &pubsubpb.PullRequest{
		Subscription: "projects/" + Project + "/subscriptions/" + subscription, MaxMessages: 100,
	})
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetReceivedMessages()
}

func data(messages []*pubsubpb.ReceivedMessage) map[string]int {
	got := map[string]int{}
	for _, m := range messages {
		got[string(m.GetMessage().GetData())]++
	}
	return got
}

func message(text, mode string) *pubsubpb.PubsubMessage {
	m := &pubsubpb.PubsubMessage{Data: []byte(text)}
	if mode != "" {
		m.Attributes = map[string]string{schemas.AttributeMode: mode}
	}
	return m
}

func checkSubscriptions(t *testing.T, addr string) {
	t.Helper()
	client := pubsubClient(t, addr)
	for name, filter := range map[string]string{
		schemas.SubscriptionOnline: schemas.OnlineFilter, schemas.SubscriptionBatch: schemas.BatchFilter, schemas.SubscriptionDead: "",
	} {
		sub, err := client.SubscriptionAdminClient.GetSubscription(t.Context(), &pubsubpb.GetSubscriptionRequest{
			Subscription: "projects/" + Project + "/subscriptions/" + name,
		})
		if err != nil {
			t.Errorf("subscription %s: %v", name, err)
			continue
		}
		if sub.GetFilter() != filter || sub.GetAckDeadlineSeconds() != 60 {
			t.Errorf("subscription %s: filter %q, ack deadline %d s", name, sub.GetFilter(), sub.GetAckDeadlineSeconds())
		}
	}
	if _, err := client.TopicAdminClient.GetTopic(t.Context(), &pubsubpb.GetTopicRequest{Topic: topicName(schemas.TopicResults)}); err != nil {
		t.Errorf("topic results: %v", err)
	}
}

func TestFilters(t *testing.T) {
	t.Parallel()
	client, _ := startTestPubSub(t)
	err := publish(t, client, schemas.TopicJobs, message("plain", ""), message("online", "online"), message("batch", "batch"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]int{"plain": 1, "online": 1}, data(pull(t, client, schemas.SubscriptionOnline))); diff != "" {
		t.Errorf("online (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]int{"batch": 1}, data(pull(t, client, schemas.SubscriptionBatch))); diff != "" {
		t.Errorf("batch (-want +got):\n%s", diff)
	}
}

func TestDeadLettersStayToBeSeen(t *testing.T) {
	t.Parallel()
	client, _ := startTestPubSub(t)
	if err := publish(t, client, schemas.TopicDead, message("not a job", "")); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]int{"not a job": 1}, data(pull(t, client, schemas.SubscriptionDead))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestMessageSizes(t *testing.T) {
	t.Parallel()
	client, _ := startTestPubSub(t)
	if err := publish(t, client, schemas.TopicJobs, &pubsubpb.PubsubMessage{Data: make([]byte, 9_000_000)}); err != nil {
		t.Errorf("9 MB: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, err := client.TopicAdminClient.Publish(ctx, &pubsubpb.PublishRequest{
		Topic: topicName(schemas.TopicJobs), Messages: []*pubsubpb.PubsubMessage{{Data: make([]byte, 10_000_001)}},
	})
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("over 10 MB: %v, want INVALID_ARGUMENT", err)
	}
}

func TestWaitingMessagesAreKept(t *testing.T) {
	t.Parallel()
	client, clock := startTestPubSub(t)
	if err := publish(t, client, schemas.TopicJobs, message("a", ""), message("b", "")); err != nil {
		t.Fatal(err)
	}
	// A request to a topic that isn't there must not confuse the clock, which a lease that ends early would show.
	if err := publish(t, client, "missing", message("c", ""), message("d", "")); status.Code(err) != codes.NotFound {
		t.Fatalf("publish to a missing topic: %v", err)
	}
	clock.advance(24 * time.Hour)
	first := pull(t, client, schemas.SubscriptionOnline)
	if diff := cmp.Diff(map[string]int{"a": 1, "b": 1}, data(first)); diff != "" {
		t.Fatalf("after a day (-want +got):\n%s", diff)
	}
	if age := clock.now().Sub(first[0].GetMessage().GetPublishTime().AsTime()); age < 24*time.Hour || age > 25*time.Hour {
		t.Errorf("published %v ago, want a day", age)
	}
	if again := pull(t, client, schemas.SubscriptionOnline); len(again) > 0 {
		t.Errorf("delivered again while leased: %v", data(again))
	}
	clock.advance(61 * time.Second)
	if diff := cmp.Diff(map[string]int{"a": 1, "b": 1}, data(pull(t, client, schemas.SubscriptionOnline))); diff != "" {
		t.Errorf("after the lease (-want +got):\n%s", diff)
	}
}
