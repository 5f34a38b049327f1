package bench

import (
	"context"
	"fmt"
	"strings"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/assetmill/assetmill/schemas"
)

const (
	// ackDeadline is the subscriptions', in seconds, as Terraform sets it.
	ackDeadline = 60
	// publishBatch is the most that Pub/Sub takes in a request.
	publishBatch = 1000
	// promptBytes is about as long as marketing's prompts are.
	promptBytes = 400
)

// publish makes the topics and the subscriptions, and publishes the jobs.
func (t *turn) publish(ctx context.Context) error {
	conn, err := grpc.NewClient(t.queue.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("open the queue: %w", err)
	}
	defer conn.Close()
	publisher := pubsubpb.NewPublisherClient(conn)
	topic := func(id string) string { return "projects/" + t.project + "/topics/" + id }
	for _, id := range []string{schemas.TopicJobs, schemas.TopicResults, schemas.TopicDead, schemas.TopicBatches} {
		if _, err := publisher.CreateTopic(ctx, &pubsubpb.Topic{Name: topic(id)}); err != nil {
			return fmt.Errorf("create topic %s: %w", id, err)
		}
	}
	subscriber := pubsubpb.NewSubscriberClient(conn)
	for _, sub := range []*pubsubpb.Subscription{
		{Name: schemas.SubscriptionOnline, Topic: schemas.TopicJobs, Filter: schemas.OnlineFilter},
		{Name: schemas.SubscriptionBatch, Topic: schemas.TopicJobs, Filter: schemas.BatchFilter},
		{Name: schemas.SubscriptionBatches, Topic: schemas.TopicBatches},
	} {
		sub.Name, sub.Topic, sub.AckDeadlineSeconds = "projects/"+t.project+"/subscriptions/"+sub.Name, topic(sub.Topic), ackDeadline
		if _, err := subscriber.CreateSubscription(ctx, sub); err != nil {
			return fmt.Errorf("create subscription %s: %w", sub.Name, err)
		}
	}
	for from := 0; from < t.jobs(); from += publishBatch {
		req := &pubsubpb.PublishRequest{Topic: topic(schemas.TopicJobs)}
		for i := from; i < min(from+publishBatch, t.jobs()); i++ {
			m, err := message(i)
			if err != nil {
				return err
			}
			req.Messages = append(req.Messages, m)
		}
		if _, err := publisher.Publish(ctx, req); err != nil {
			return fmt.Errorf("publish jobs: %w", err)
		}
	}
	return nil
}

func message(i int) (*pubsubpb.PubsubMessage, error) {
	prompt := fmt.Sprintf("Product photo number %d, ", i)
	prompt += strings.Repeat("soft light from the left, ", (promptBytes-len(prompt))/len("soft light from the left, "))
	data, err := schemas.Marshal(&schemas.Job{
		Id: fmt.Sprintf("bench-%06d", i), Submission: "bench", Campaign: "bench", Prompt: prompt,
	})
	if err != nil {
		return nil, fmt.Errorf("job %d: %w", i, err)
	}
	return &pubsubpb.PubsubMessage{Data: data, Attributes: map[string]string{schemas.AttributeMode: "online"}}, nil
}
