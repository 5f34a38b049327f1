package doctor_test

import (
	"context"
	"strings"
	"time"

	"cloud.google.com/go/iam/apiv1/iampb"
	pubsub "cloud.google.com/go/pubsub/v2/apiv1"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"
	"google.golang.org/api/option"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/assetmill/assetmill/schemas"
)

// startPubSub starts Pub/Sub, which pstest plays, with the IAM that pstest lacks.
func (c *cloud) startPubSub() {
	c.pubsub = pstest.NewServerWithCallback(0, func(s *grpc.Server) { iampb.RegisterIAMPolicyServer(s, policies{cloud: c}) },
		c.guard("GetTopic", "pubsub.topics.get", func(req any) string { return "topic " + last(req.(*pubsubpb.GetTopicRequest).GetTopic()) }),
		c.guard("GetSubscription", "pubsub.subscriptions.get", func(req any) string {
			return "subscription " + last(req.(*pubsubpb.GetSubscriptionRequest).GetSubscription())
		}),
		c.guard("GetSchema", "pubsub.schemas.get", func(any) string { return "project" }))
	c.t.Cleanup(func() { c.pubsub.Close() })
	ctx := c.t.Context()
	s := &c.pubsub.GServer
	for _, id := range []string{schemas.TopicBatches, schemas.TopicJobs, schemas.TopicDead, schemas.TopicResults} {
		topic := &pubsubpb.Topic{Name: topicName(id), MessageStoragePolicy: &pubsubpb.MessageStoragePolicy{AllowedPersistenceRegions: []string{region}}}
		if definition := schemas.TopicSchema(id); definition != "" {
			_, err := s.CreateSchema(ctx, &pubsubpb.CreateSchemaRequest{
				Parent: "projects/" + projectID, SchemaId: "assetmill-" + id, Schema: &pubsubpb.Schema{Type: pubsubpb.Schema_PROTOCOL_BUFFER, Definition: definition},
			})
			c.must(err)
			topic.SchemaSettings = &pubsubpb.SchemaSettings{Schema: schemaName(id), Encoding: pubsubpb.Encoding_JSON}
		}
		_, err := s.CreateTopic(ctx, topic)
		c.must(err)
	}
	for _, sub := range []*pubsubpb.Subscription{
		{Name: "batches", Topic: "batches", AckDeadlineSeconds: 600},
		{Name: "jobs-batch", Topic: "jobs", Filter: schemas.BatchFilter},
		{Name: "jobs-dead-review", Topic: "jobs-dead"},
		{Name: "jobs-online", Topic: "jobs", Filter: schemas.OnlineFilter},
	} {
		c.subscribe(sub, sub.GetName() != "jobs-dead-review")
	}
}

// subscribe makes a subscription as Terraform does.
func (c *cloud) subscribe(sub *pubsubpb.Subscription, deadLetters bool) {
	sub.Name, sub.Topic = subscriptionName(sub.GetName()), topicName(sub.GetTopic())
	if sub.AckDeadlineSeconds == 0 {
		sub.AckDeadlineSeconds = 60
	}
	sub.ExpirationPolicy = &pubsubpb.ExpirationPolicy{}
	sub.RetryPolicy = &pubsubpb.RetryPolicy{MinimumBackoff: durationpb.New(time.Second), MaximumBackoff: durationpb.New(600 * time.Second)}
	if deadLetters {
		sub.DeadLetterPolicy = &pubsubpb.DeadLetterPolicy{DeadLetterTopic: topicName("jobs-dead"), MaxDeliveryAttempts: 100}
	}
	c.addSubscription(sub, durationpb.New(31*24*time.Hour))
}

// addSubscription makes a subscription that keeps messages for longer than pstest, unlike Pub/Sub, lets it.
func (c *cloud) addSubscription(sub *pubsubpb.Subscription, kept *durationpb.Duration) {
	made, err := c.pubsub.GServer.CreateSubscription(c.t.Context(), sub)
	c.must(err)
	made.MessageRetentionDuration = kept
}

func (c *cloud) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func topicName(id string) string        { return "projects/" + projectID + "/topics/" + id }
func subscriptionName(id string) string { return "projects/" + projectID + "/subscriptions/" + id }
func schemaName(topic string) string    { return "projects/" + projectID + "/schemas/assetmill-" + topic }
func last(name string) string           { return name[strings.LastIndex(name, "/")+1:] }

// sub changes a subscription in ways that Pub/Sub's own interface may not allow.
func (c *cloud) sub(id string, change func(*pubsubpb.Subscription)) {
	s, err := c.pubsub.GServer.GetSubscription(c.t.Context(), &pubsubpb.GetSubscriptionRequest{Subscription: subscriptionName(id)})
	c.must(err)
	change(s)
}

// topic does the same to a topic.
func (c *cloud) topic(id string, change func(*pubsubpb.Topic)) {
	t, err := c.pubsub.GServer.GetTopic(c.t.Context(), &pubsubpb.GetTopicRequest{Topic: topicName(id)})
	c.must(err)
	change(t)
}

// guard makes pstest refuse a caller who lacks a permission.
func (c *cloud) guard(method, permission string, resource func(req any) string) pstest.ServerReactorOption {
	return pstest.ServerReactorOption{FuncName: method, Reactor: reaction(func(req any) error {
		c.mu.Lock()
		defer c.mu.Unlock()
		if !c.apis["pubsub.googleapis.com"] {
			return notEnabled("pubsub.googleapis.com")
		}
		if !c.may(permission, resource(req)) {
			return status.Error(codes.PermissionDenied, "User not authorized to perform this action.")
		}
		return nil
	})}
}

func notEnabled(api string) error {
	s, err := status.New(codes.PermissionDenied, "Cloud Pub/Sub API has not been used in project before or it is disabled").
		WithDetails(&errdetails.ErrorInfo{Reason: "SERVICE_DISABLED", Domain: "googleapis.com", Metadata: map[string]string{"service": api}})
	if err != nil {
		panic(err)
	}
	return s.Err()
}

// reaction is a reactor that may refuse.
type reaction func(req any) error

// React implements pstest.Reactor.
func (f reaction) React(req any) (handled bool, ret any, err error) {
	if err := f(req); err != nil {
		switch req.(type) {
		case *pubsubpb.GetTopicRequest:
			return true, &pubsubpb.Topic{}, err
		case *pubsubpb.GetSubscriptionRequest:
			return true, &pubsubpb.Subscription{}, err
		default:
			return true, &pubsubpb.Schema{}, err
		}
	}
	return false, nil, nil
}

// policies is Pub/Sub's IAM.
type policies struct {
	iampb.UnimplementedIAMPolicyServer
	*cloud
}

func iamResource(name string) string {
	if strings.Contains(name, "/topics/") {
		return "topic " + last(name)
	}
	return "subscription " + last(name)
}

// TestIamPermissions implements iampb.IAMPolicyServer.
func (p policies) TestIamPermissions(_ context.Context, req *iampb.TestIamPermissionsRequest) (*iampb.TestIamPermissionsResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.apis["pubsub.googleapis.com"] {
		return nil, notEnabled("pubsub.googleapis.com")
	}
	return &iampb.TestIamPermissionsResponse{Permissions: p.permitted(req.GetPermissions(), iamResource(req.GetResource()))}, nil
}

// GetIamPolicy implements iampb.IAMPolicyServer.
func (p policies) GetIamPolicy(_ context.Context, req *iampb.GetIamPolicyRequest) (*iampb.Policy, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	resource := iamResource(req.GetResource())
	kind, _, _ := strings.Cut(resource, " ")
	if !p.may("pubsub."+kind+"s.getIamPolicy", resource) {
		return nil, status.Error(codes.PermissionDenied, "User not authorized to perform this action.")
	}
	policy := &iampb.Policy{}
	for _, b := range p.bindings(resource) {
		policy.Bindings = append(policy.Bindings, &iampb.Binding{Role: b["role"].(string), Members: b["members"].([]string)})
	}
	return policy, nil
}

// pubsubClients connects to Pub/Sub.
func (c *cloud) pubsubClients() (*pubsub.TopicAdminClient, *pubsub.SubscriptionAdminClient, *pubsub.SchemaClient) {
	options := []option.ClientOption{
		option.WithEndpoint(c.pubsub.Addr), option.WithoutAuthentication(), option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())),
	}
	topics, err := pubsub.NewTopicAdminClient(c.t.Context(), options...)
	c.must(err)
	c.t.Cleanup(func() { topics.Close() })
	subscriptions, err := pubsub.NewSubscriptionAdminClient(c.t.Context(), options...)
	c.must(err)
	c.t.Cleanup(func() { subscriptions.Close() })
	definitions, err := pubsub.NewSchemaClient(c.t.Context(), options...)
	c.must(err)
	c.t.Cleanup(func() { definitions.Close() })
	return topics, subscriptions, definitions
}

// define gives a topic's schema a further revision.
func (c *cloud) define(topic, definition string) {
	_, err := c.pubsub.GServer.CommitSchema(c.t.Context(), &pubsubpb.CommitSchemaRequest{
		Name: schemaName(topic), Schema: &pubsubpb.Schema{Name: schemaName(topic), Type: pubsubpb.Schema_PROTOCOL_BUFFER, Definition: definition},
	})
	c.must(err)
}

func (c *cloud) must1(_ any, err error) { c.t.Helper(); c.must(err) }
