package queue_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/jobs/queue"
	"github.com/assetmill/assetmill/schemas"
)

const project = "test"

// open starts a Pub/Sub in process with all topics and subscriptions but the ones left out.
func open(t *testing.T, without ...string) (*pstest.Server, *pubsub.Client) {
	t.Helper()
	server := pstest.NewServer()
	t.Cleanup(func() { server.Close() })
	client := dial(t, server)
	for _, topic := range []string{schemas.TopicJobs, schemas.TopicDead, schemas.TopicResults, schemas.TopicBatches} {
		if slices.Contains(without, "topic "+topic) {
			continue
		}
		if _, err := client.TopicAdminClient.CreateTopic(t.Context(), &pubsubpb.Topic{Name: "projects/test/topics/" + topic}); err != nil {
			t.Fatal(err)
		}
	}
	for sub, filter := range map[string]string{schemas.SubscriptionOnline: schemas.OnlineFilter, schemas.SubscriptionBatch: schemas.BatchFilter} {
		if slices.Contains(without, "subscription "+sub) {
			continue
		}
		_, err := client.SubscriptionAdminClient.CreateSubscription(t.Context(), &pubsubpb.Subscription{
			Name: "projects/test/subscriptions/" + sub, Topic: "projects/test/topics/jobs", AckDeadlineSeconds: 60, Filter: filter,
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return server, client
}

func dial(t *testing.T, server *pstest.Server, opts ...grpc.DialOption) *pubsub.Client {
	t.Helper()
	conn, err := grpc.NewClient(server.Addr, append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	client, err := pubsub.NewClient(t.Context(), project, option.WithGRPCConn(conn))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// publish publishes one job, and returns when Pub/Sub has it.
func publish(t *testing.T, ctx context.Context, q *queue.Queue, m *schemas.Job) *jobs.Job {
	t.Helper()
	j, err := jobs.DefaultCatalogue().Parse(m)
	if err != nil {
		t.Fatal(err)
	}
	wait, err := q.PublishJob(ctx, j)
	if err != nil {
		t.Fatal(err)
	}
	if err := wait(ctx); err != nil {
		t.Fatal(err)
	}
	return j
}

// collect receives until n verdicts were given, and returns what was delivered.
func collect(t *testing.T, q *queue.Queue, n int, verdict func(d *jobs.Delivery) jobs.Verdict) []*jobs.Delivery {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	var mu sync.Mutex
	var all []*jobs.Delivery
	err := q.Receive(ctx, func(_ context.Context, d *jobs.Delivery) jobs.Verdict {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, d)
		if len(all) == n {
			defer stop()
		}
		return verdict(d)
	})
	if err != nil {
		t.Fatalf("Receive: %v", err)
	}
	if len(all) < n {
		t.Fatalf("%d deliveries, want %d", len(all), n)
	}
	return all
}

func ack(*jobs.Delivery) jobs.Verdict { return jobs.Verdict{Action: jobs.Ack} }

func TestAJobArrivesAsItWasPublished(t *testing.T) {
	_, client := open(t)
	q := queue.New(client, queue.Config{Mode: jobs.Online, MaxMessages: 4})
	defer q.Close()
	j := publish(t, t.Context(), q, &schemas.Job{Prompt: "a red fox 🦊", Campaign: "spring", Source: map[string]string{"SKU": "7"}})
	d := collect(t, q, 1, ack)[0]
	m := &schemas.Job{}
	if err := schemas.Unmarshal(d.Data, m); err != nil {
		t.Fatal(err)
	}
	got, err := jobs.DefaultCatalogue().Parse(m)
	if err != nil || got.ID != j.ID || got.Digest() != j.Digest() || got.Source["SKU"] != "7" {
		t.Errorf("got %+v, %v", got, err)
	}
	if d.ID == "" || d.Published.IsZero() || d.Attributes[schemas.AttributeMode] != "online" {
		t.Errorf("delivery %+v", d)
	}
}

func TestRetryDeliversAgainAndAckDoesNot(t *testing.T) {
	server, client := open(t)
	q := queue.New(client, queue.Config{Mode: jobs.Online, MaxMessages: 1})
	defer q.Close()
	server.Publish("projects/test/topics/jobs", []byte("x"), nil)
	n := 0
	collect(t, q, 3, func(*jobs.Delivery) jobs.Verdict {
		if n++; n < 3 {
			return jobs.Verdict{Action: jobs.Retry}
		}
		return jobs.Verdict{Action: jobs.Ack}
	})
	if m := server.Messages()[0]; m.Acks != 1 || m.Deliveries != 3 {
		t.Errorf("%d deliveries, %d acks", m.Deliveries, m.Acks)
	}
}

// A job that only waits must not end among the dead letters because Pub/Sub has delivered it often.
func TestAJobMayWaitForMoreDeliveriesThanPubSubAllows(t *testing.T) {
	t.Parallel()
	_, client := open(t, "subscription "+schemas.SubscriptionOnline)
	_, err := client.SubscriptionAdminClient.CreateSubscription(t.Context(), &pubsubpb.Subscription{
		Name: "projects/test/subscriptions/" + schemas.SubscriptionOnline, Topic: "projects/test/topics/jobs", AckDeadlineSeconds: 60,
		DeadLetterPolicy: &pubsubpb.DeadLetterPolicy{DeadLetterTopic: "projects/test/topics/jobs-dead", MaxDeliveryAttempts: 100},
	})
	if err != nil {
		t.Fatal(err)
	}
	q := queue.New(client, queue.Config{Mode: jobs.Online})
	t.Cleanup(q.Close)
	publish(t, t.Context(), q, &schemas.Job{Prompt: "waits"})
	all := collect(t, q, 110, func(*jobs.Delivery) jobs.Verdict { return jobs.Verdict{Action: jobs.Retry} })
	ids := map[string]bool{}
	for _, d := range all {
		ids[d.ID] = true
		if !d.Published.Equal(all[0].Published) || string(d.Data) != string(all[0].Data) || d.Attributes[schemas.AttributeMode] != "online" {
			t.Fatalf("delivered %+v, first %+v", d, all[0])
		}
	}
	if len(ids) != 3 { // at first, and after 50 and 100 deliveries
		t.Errorf("published %d times", len(ids))
	}
}

func TestDeadLettersCarryTheirReason(t *testing.T) {
	server, client := open(t)
	q := queue.New(client, queue.Config{Mode: jobs.Online, MaxMessages: 1})
	defer q.Close()
	id := server.Publish("projects/test/topics/jobs", []byte("garbage"), map[string]string{"origin": "erp"})
	detail := strings.Repeat("é", 2000)
	collect(t, q, 1, func(*jobs.Delivery) jobs.Verdict {
		return jobs.Verdict{Action: jobs.Dead, Reason: jobs.ReasonInvalidMessage, Detail: detail}
	})
	var dead *pstest.Message
	for _, m := range server.Messages() {
		if m.Topic == "projects/test/topics/jobs-dead" {
			dead = m
		}
		if m.ID == id && m.Acks != 1 {
			t.Error("the message was not acknowledged")
		}
	}
	switch {
	case dead == nil:
		t.Fatal("no dead letter")
	case string(dead.Data) != "garbage", dead.Attributes["origin"] != "erp", dead.Attributes[schemas.AttributeReason] != "invalid_message",
		dead.Attributes[schemas.AttributeMessageID] != id, !strings.HasPrefix(detail, dead.Attributes[schemas.AttributeDetail]):
		t.Errorf("dead letter %q %v", dead.Data, dead.Attributes)
	case len(dead.Attributes[schemas.AttributeDetail]) > 1024:
		t.Error("an attribute is longer than Pub/Sub allows")
	}
}

func TestDeadLettersGoBackToTheirTopic(t *testing.T) {
	for topic, attributes := range map[string]map[string]string{
		schemas.TopicJobs:    {schemas.AttributeMode: "online"},
		schemas.TopicBatches: {schemas.AttributeBatch: "b-1"},
	} {
		server, client := open(t)
		q := queue.New(client, queue.Config{})
		t.Cleanup(q.Close)
		if err := q.Replay(t.Context(), &queue.DeadLetter{ID: "1", Data: []byte("x"), Attributes: attributes}); err != nil {
			t.Fatal(err)
		}
		if all := server.Messages(); len(all) != 1 || all[0].Topic != "projects/test/topics/"+topic || string(all[0].Data) != "x" {
			t.Errorf("published %+v, want it on %s", all, topic)
		}
	}
}

func TestNothingIsAckedWhileItsDeadLetterCannotBePublished(t *testing.T) {
	server, client := open(t, "topic jobs-dead")
	q := queue.New(client, queue.Config{Mode: jobs.Online, MaxMessages: 1})
	defer q.Close()
	id := server.Publish("projects/test/topics/jobs", []byte("garbage"), nil)
	ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	if err := q.Receive(ctx, func(context.Context, *jobs.Delivery) jobs.Verdict {
		stop() // the verdict is carried out although receiving has ended
		return jobs.Verdict{Action: jobs.Dead, Reason: jobs.ReasonInvalidMessage}
	}); err != nil {
		t.Fatal(err)
	}
	if m := server.Message(id); m.Acks != 0 {
		t.Error("the message was acknowledged, and is nowhere now")
	}
}

func TestEachModeKeepsToItsOwn(t *testing.T) {
	server, client := open(t)
	for i := range 10 {
		server.Publish("projects/test/topics/jobs", fmt.Append(nil, "batch ", i), map[string]string{"mode": "batch"})
		server.Publish("projects/test/topics/jobs", fmt.Append(nil, "online ", i), map[string]string{"mode": "online"})
		server.Publish("projects/test/topics/jobs", fmt.Append(nil, "online without ", i), nil)
	}
	for mode, want := range map[jobs.Mode]int{jobs.Online: 20, jobs.Batch: 10} {
		q := queue.New(client, queue.Config{Mode: mode, MaxMessages: 8, Streams: 4})
		for _, d := range collect(t, q, want, ack) {
			if !strings.HasPrefix(string(d.Data), string(mode)) {
				t.Errorf("the %s consumer got %q", mode, d.Data)
			}
		}
		q.Close()
	}
}

// One emulator ignores filters, so both subscriptions get everything there.
func TestAConsumerDropsWhatIsNotItsOwn(t *testing.T) {
	server, client := open(t, "subscription "+schemas.SubscriptionOnline)
	if _, err := client.SubscriptionAdminClient.CreateSubscription(t.Context(), &pubsubpb.Subscription{
		Name: "projects/test/subscriptions/jobs-online", Topic: "projects/test/topics/jobs",
	}); err != nil {
		t.Fatal(err)
	}
	server.Publish("projects/test/topics/jobs", []byte("batch"), map[string]string{"mode": "batch"})
	server.Publish("projects/test/topics/jobs", []byte("online"), nil)
	q := queue.New(client, queue.Config{Mode: jobs.Online, MaxMessages: 1})
	defer q.Close()
	for _, d := range collect(t, q, 1, ack) {
		if string(d.Data) != "online" {
			t.Errorf("got %q", d.Data)
		}
	}
}

func TestStoppingWaitsForHandlers(t *testing.T) {
	server, client := open(t)
	q := queue.New(client, queue.Config{Mode: jobs.Online, MaxMessages: 4})
	defer q.Close()
	server.Publish("projects/test/topics/jobs", []byte("x"), nil)
	ctx, stop := context.WithCancel(t.Context())
	began, finish := make(chan struct{}), make(chan struct{})
	returned := make(chan error, 1)
	go func() {
		returned <- q.Receive(ctx, func(work context.Context, _ *jobs.Delivery) jobs.Verdict {
			close(began)
			<-finish
			if work.Err() != nil {
				t.Error("the handler's context ended with Receive's")
			}
			return jobs.Verdict{Action: jobs.Ack}
		})
	}()
	<-began
	stop()
	select {
	case <-returned:
		t.Fatal("Receive returned while a handler was at work")
	default:
	}
	close(finish)
	if err := <-returned; err != nil {
		t.Fatal(err)
	}
	if m := server.Messages()[0]; m.Acks != 1 {
		t.Error("the verdict was not carried out")
	}
}

func TestMissingPiecesAreNamed(t *testing.T) {
	_, client := open(t, "topic results", "subscription jobs-online")
	q := queue.New(client, queue.Config{Mode: jobs.Online})
	defer q.Close()
	if err := q.Check(t.Context(), schemas.TopicJobs); err != nil {
		t.Errorf("an existing topic: %v", err)
	}
	for what, err := range map[string]error{
		"topic results":            q.Check(t.Context(), schemas.TopicResults),
		"topic results does":       q.Publish(t.Context(), &schemas.JobResult{JobId: "j"}),
		"subscription jobs-online": q.CheckSubscription(t.Context()),
		"subscription jobs-online does": q.Receive(t.Context(), func(context.Context, *jobs.Delivery) jobs.Verdict {
			return jobs.Verdict{}
		}),
	} {
		if err == nil || !strings.Contains(err.Error(), what) || !strings.Contains(err.Error(), "does not exist") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestMissingPermissionsAreNamed(t *testing.T) {
	server, _ := open(t)
	denied := status.Error(codes.PermissionDenied, "no")
	client := dial(t, server,
		grpc.WithUnaryInterceptor(func(context.Context, string, any, any, *grpc.ClientConn, grpc.UnaryInvoker, ...grpc.CallOption) error {
			return denied
		}),
		grpc.WithStreamInterceptor(func(context.Context, *grpc.StreamDesc, *grpc.ClientConn, string, grpc.Streamer, ...grpc.CallOption) (grpc.ClientStream, error) {
			return nil, denied
		}))
	q := queue.New(client, queue.Config{Mode: jobs.Online})
	defer q.Close()
	if err := q.Check(t.Context(), schemas.TopicJobs); err != nil {
		t.Errorf("an account that may publish need not be allowed to look: %v", err)
	}
	for role, err := range map[string]error{
		"roles/pubsub.publisher": q.Publish(t.Context(), &schemas.JobResult{JobId: "j"}),
		"roles/pubsub.subscriber": q.Receive(t.Context(), func(context.Context, *jobs.Delivery) jobs.Verdict {
			return jobs.Verdict{}
		}),
	} {
		if err == nil || !strings.Contains(err.Error(), role) {
			t.Errorf("%s: %v", role, err)
		}
	}
}
