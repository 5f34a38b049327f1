package localcloud

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/assetmill/assetmill/schemas"
)

const (
	// ackDeadline is Terraform's too: long enough for the first extension of a starved worker.
	ackDeadline = 60 * time.Second
	// retention is Pub/Sub's default and maximum for a subscription.
	retention = 7 * 24 * time.Hour
	// maxPublishBytes is Pub/Sub's limit of a publish request; maxReceiveBytes lets a larger one arrive, to be refused for what
	// it is and not as a fault of the transport, which clients repeat.
	maxPublishBytes = 10_000_000
	maxReceiveBytes = 64 << 20
	// minBackoff and maxBackoff space redeliveries, on an emulator that honours them.
	minBackoff = time.Second
	maxBackoff = 60 * time.Second
)

// pubsubServer is pstest behind a gRPC server of our own: pstest's own takes messages up to 4 MB only.
type pubsubServer struct {
	fake   *pstest.Server
	front  *grpc.Server
	served chan error
}

// NewPubSub starts pstest and has it keep its messages for a week, as Pub/Sub does. wall is the time of day.
func NewPubSub(wall func() time.Time) *pstest.Server {
	clock := &leaseClock{wall: wall, topics: map[string]bool{}}
	fake := pstest.NewServer(
		pstest.ServerReactorOption{FuncName: "CreateTopic", Reactor: reaction(clock.created)},
		pstest.ServerReactorOption{FuncName: "DeleteTopic", Reactor: reaction(clock.deleted)},
		pstest.ServerReactorOption{FuncName: "Publish", Reactor: reaction(clock.publishing)},
	)
	fake.SetTimeNowFunc(clock.now)
	return fake
}

// startPubSub serves Pub/Sub; wall is the time of day.
func startPubSub(l net.Listener, wall func() time.Time) *pubsubServer {
	fake := NewPubSub(wall)
	s := &pubsubServer{
		fake:   fake,
		front:  grpc.NewServer(grpc.MaxRecvMsgSize(maxReceiveBytes), grpc.UnaryInterceptor(refuseLarge)),
		served: make(chan error, 1),
	}
	pubsubpb.RegisterPublisherServer(s.front, &fake.GServer)
	pubsubpb.RegisterSubscriberServer(s.front, &fake.GServer)
	pubsubpb.RegisterSchemaServiceServer(s.front, &fake.GServer)
	go func() { s.served <- s.front.Serve(l) }()
	return s
}

func (s *pubsubServer) close() error {
	s.front.Stop()
	return errors.Join(<-s.served, s.fake.Close())
}

// refuseLarge refuses a publish request that Pub/Sub would refuse.
func refuseLarge(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if publish, ok := req.(*pubsubpb.PublishRequest); ok && proto.Size(publish) > maxPublishBytes {
		return nil, status.Errorf(codes.InvalidArgument, "The request of %d bytes is larger than the limit of %d bytes.", proto.Size(publish), maxPublishBytes)
	}
	return handler(ctx, req)
}

// leaseClock is the time that pstest lives by. pstest throws a message away ten minutes after it was published, unless it is
// leased at that moment: a long queue would lose its end. Leases are compared with each other only, a message's age is the time of the
// leases minus that of its publication. So leases run a week behind, publications don't, and messages live for a week and ten
// minutes.
//
// pstest calls its reactors and its clock while it holds its lock, and Publish asks for the time once for each message; so
// "the next n calls are Publish's" can be counted, and needs no lock of its own.
type leaseClock struct {
	wall   func() time.Time
	topics map[string]bool
	stamps int // calls of now to come that stamp published messages
}

func (c *leaseClock) created(req any) {
	if t, ok := req.(*pubsubpb.Topic); ok {
		c.topics[t.GetName()] = true
	}
}

func (c *leaseClock) deleted(req any) {
	if t, ok := req.(*pubsubpb.DeleteTopicRequest); ok {
		delete(c.topics, t.GetTopic())
	}
}

func (c *leaseClock) publishing(req any) {
	c.stamps = 0
	// Publish to a topic that is missing fails before it asks for the time.
	if p, ok := req.(*pubsubpb.PublishRequest); ok && c.topics[p.GetTopic()] {
		c.stamps = len(p.GetMessages())
	}
}

func (c *leaseClock) now() time.Time {
	if c.stamps > 0 {
		c.stamps--
		return c.wall()
	}
	return c.wall().Add(-retention)
}

// reaction lets a function see a request of pstest's and leaves the request to pstest.
type reaction func(req any)

// React implements pstest.Reactor.
func (f reaction) React(req any) (handled bool, ret any, err error) {
	f(req)
	return false, nil, nil
}

// ensureTopics creates what is missing: the topics and the subscriptions.
func ensureTopics(ctx context.Context, addr string) error {
	client, err := pubsub.NewClient(ctx, Project,
		option.WithEndpoint(addr), option.WithoutAuthentication(),
		option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())))
	if err != nil {
		return err
	}
	defer client.Close() // nothing was published
	for _, topic := range []string{schemas.TopicJobs, schemas.TopicDead, schemas.TopicResults, schemas.TopicBatches} {
		_, err := client.TopicAdminClient.CreateTopic(ctx, &pubsubpb.Topic{Name: topicName(topic)})
		if err != nil && status.Code(err) != codes.AlreadyExists {
			return fmt.Errorf("create topic %s: %w", topic, err)
		}
	}
	for _, sub := range subscriptions() {
		_, err := client.SubscriptionAdminClient.CreateSubscription(ctx, sub)
		if err != nil && status.Code(err) != codes.AlreadyExists {
			return fmt.Errorf("create subscription %s: %w", sub.GetName(), err)
		}
	}
	return nil
}

func subscriptions() []*pubsubpb.Subscription {
	all := []*pubsubpb.Subscription{
		{Name: schemas.SubscriptionOnline, Topic: schemas.TopicJobs, Filter: schemas.OnlineFilter},
		{Name: schemas.SubscriptionBatch, Topic: schemas.TopicJobs, Filter: schemas.BatchFilter},
		{Name: schemas.SubscriptionBatches, Topic: schemas.TopicBatches},
		{Name: schemas.SubscriptionDead, Topic: schemas.TopicDead},
	}
	for _, s := range all {
		s.Name = "projects/" + Project + "/subscriptions/" + s.Name
		s.Topic = topicName(s.Topic)
		s.AckDeadlineSeconds = int32(ackDeadline / time.Second)
		s.MessageRetentionDuration = durationpb.New(retention)
		s.RetryPolicy = &pubsubpb.RetryPolicy{MinimumBackoff: durationpb.New(minBackoff), MaximumBackoff: durationpb.New(maxBackoff)}
	}
	return all
}

func topicName(id string) string { return "projects/" + Project + "/topics/" + id }
