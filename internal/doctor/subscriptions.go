package doctor

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/assetmill/assetmill/schemas"
)

// What subscriptions should be set to; deploy/terraform has the same.
const (
	// minAckDeadline is the lease that workers ask for themselves. A shorter deadline holds until their first extension arrives.
	minAckDeadline  = 20 * time.Second
	goodAckDeadline = 60 * time.Second
	minBackoff      = time.Second
	maxBackoff      = 600 * time.Second
	// minRetention is Pub/Sub's default: less, and a long weekend with a paused submission loses jobs.
	minRetention = 7 * 24 * time.Hour
	// minAttempts and goodAttempts bound the deliveries before Pub/Sub gives up by itself. Each time that a job is given back counts: when a
	// worker stops, and every ten minutes while its submission is paused. Workers publish a job that has waited for 50 deliveries anew
	// (jobs/queue); below that, it becomes a dead letter first. 100 is Pub/Sub's most.
	minAttempts  = 60
	goodAttempts = 100
)

// subscription is what a subscription should be.
type subscription struct {
	id, topic, filter string
	ackDeadline       time.Duration
	deadLetters       bool   // Pub/Sub gives up on its messages after some deliveries
	without           string // what happens when there is none
}

func allSubscriptions() []subscription {
	return []subscription{
		{schemas.SubscriptionBatches, schemas.TopicBatches, "", 600 * time.Second, true, "gathered batches are lost, and with them their jobs"},
		{schemas.SubscriptionBatch, schemas.TopicJobs, schemas.BatchFilter, goodAckDeadline, true, "batch jobs that are published are lost"},
		{schemas.SubscriptionDead, schemas.TopicDead, "", goodAckDeadline, false, "messages that are given up are lost"},
		{schemas.SubscriptionOnline, schemas.TopicJobs, schemas.OnlineFilter, goodAckDeadline, true, "jobs that are published are lost"},
	}
}

// subscriptions returns those that a role has to do with.
func (x *exam) subscriptions() []subscription {
	return slices.DeleteFunc(allSubscriptions(), func(s subscription) bool {
		return x.cfg.Role == Submitter || x.cfg.Role == Console && s.id != schemas.SubscriptionDead
	})
}

func (a *area) checkSubscriptions(ctx context.Context) {
	all := a.subscriptions()
	found := make([]*pubsubpb.Subscription, len(all))
	errs := make([]error, len(all))
	each(len(all), func(i int) {
		ctx, done := look(ctx)
		defer done()
		found[i], errs[i] = a.cfg.Clients.Subscriptions.GetSubscription(ctx, &pubsubpb.GetSubscriptionRequest{Subscription: a.subscriptionName(all[i].id)})
	})
	for i, want := range all {
		a.checkSubscription(ctx, want, found[i], errs[i])
	}
	a.checkDeadLetterGrants(ctx, all, found)
}

func (s subscription) String() string { return place{kind: onSubscription, name: s.id}.String() }

func (s subscription) terraform() string { return `google_pubsub_subscription.this["` + s.id + `"]` }

// create is the command that creates a subscription.
func (a *area) create(s subscription) string {
	words := []string{
		"pubsub", "subscriptions", "create", s.id, "--topic=" + s.topic, "--ack-deadline=" + seconds(s.ackDeadline), "--expiration-period=never",
		"--message-retention-duration=31d", "--min-retry-delay=" + minBackoff.String(), "--max-retry-delay=" + seconds(maxBackoff) + "s",
	}
	if s.filter != "" {
		words = append(words, "--message-filter="+s.filter)
	}
	if s.deadLetters {
		words = append(words, "--dead-letter-topic="+schemas.TopicDead, "--max-delivery-attempts="+strconv.Itoa(goodAttempts))
	}
	return a.gcloud(words...)
}

// recreate is the fix of what can't be changed.
func (a *area) recreate(s subscription) Fix {
	return Fix{
		Command:   a.gcloud("pubsub", "subscriptions", "delete", s.id) + " && " + a.create(s),
		Terraform: s.terraform(),
		Note:      "It can't be changed. What waits in it is lost: stop publishing and let workers empty it first. Its grants have to be made again.",
	}
}

func seconds(d time.Duration) string { return strconv.Itoa(int(d / time.Second)) }

func (a *area) checkSubscription(ctx context.Context, want subscription, s *pubsubpb.Subscription, err error) {
	resource := want.String()
	switch f, _ := classify(err); {
	case f == missing:
		a.gone[resource] = true
		a.fail(idSubMissing, Error, resource, sentence("It does not exist: %s", want.without), Fix{Command: a.create(want), Terraform: want.terraform()})
		return
	case f == denied:
		a.limited(resource, "its settings are not checked.", Fix{Command: a.grant(place{kind: onSubscription, name: want.id}, "roles/pubsub.viewer", a.member())})
		return
	case err != nil:
		a.trouble(ctx, pubsubAPI, resource, err)
		return
	}
	a.pass(idSubMissing, resource, "It exists.")
	if s.GetTopic() != a.topicName(want.topic) {
		a.fail(idSubTopic, Error, resource, sentence("It belongs to %s instead of the topic %s", s.GetTopic(), want.topic), a.recreate(want))
	}
	if s.GetFilter() != want.filter {
		a.fail(idSubFilter, Error, resource, sentence("Its filter is %s instead of %s", orNone(s.GetFilter()), orNone(want.filter)), a.recreate(want))
	}
	if !a.cfg.Local.PubSub {
		a.checkPull(want, s)
		a.checkTimes(want, s)
		a.checkDeadLetters(want, s)
	}
}

func orNone(text string) string {
	if text == "" {
		return "none"
	}
	return "`" + text + "`"
}

// checkPull checks that workers can pull.
func (a *area) checkPull(want subscription, s *pubsubpb.Subscription) {
	fix := Fix{Command: a.gcloud("pubsub", "subscriptions", "update", want.id, "--push-endpoint="), Terraform: want.terraform()}
	how := ""
	switch {
	case s.GetDetached():
		how, fix = "It is detached from its topic", a.recreate(want)
	case s.GetPushConfig().GetPushEndpoint() != "":
		how = "It pushes to " + s.GetPushConfig().GetPushEndpoint()
	case s.GetBigqueryConfig().GetTable() != "":
		how = "It exports to the BigQuery table " + s.GetBigqueryConfig().GetTable()
		fix.Command = a.gcloud("pubsub", "subscriptions", "update", want.id, "--clear-bigquery-config")
	case s.GetCloudStorageConfig().GetBucket() != "":
		how = "It exports to the bucket " + s.GetCloudStorageConfig().GetBucket()
		fix.Command = a.gcloud("pubsub", "subscriptions", "update", want.id, "--clear-cloud-storage-config")
	default:
		a.pass(idSubPull, want.String(), "Workers pull from it.")
		return
	}
	a.fail(idSubPull, Error, want.String(), sentence("%s: workers get nothing from it", how), fix)
}

// checkTimes checks what Mend can set.
func (a *area) checkTimes(want subscription, s *pubsubpb.Subscription) {
	update := func(id, problem, what string, flags []string, fields ...string) {
		good := &pubsubpb.Subscription{
			Name:                     s.GetName(),
			AckDeadlineSeconds:       int32(want.ackDeadline / time.Second),
			ExpirationPolicy:         &pubsubpb.ExpirationPolicy{}, // no TTL: never
			MessageRetentionDuration: durationpb.New(minRetention),
			RetryPolicy:              &pubsubpb.RetryPolicy{MinimumBackoff: durationpb.New(minBackoff), MaximumBackoff: durationpb.New(maxBackoff)},
		}
		a.add(Finding{
			ID: id, Severity: Warning, Resource: want.String(), Problem: sentence("%s", problem), Mendable: what,
			Fix:  Fix{Command: a.gcloud(append([]string{"pubsub", "subscriptions", "update", want.id}, flags...)...), Terraform: want.terraform()},
			mend: a.updateSubscription(good, &fieldmaskpb.FieldMask{Paths: fields}),
		})
	}
	if d := time.Duration(s.GetAckDeadlineSeconds()) * time.Second; d < minAckDeadline {
		update(idSubDeadline, fmt.Sprintf("Its ack deadline is %s, shorter than the workers' own lease: what is being handled is delivered twice", d),
			"set its ack deadline to "+want.ackDeadline.String(), []string{"--ack-deadline=" + seconds(want.ackDeadline)}, "ack_deadline_seconds")
	} else {
		a.pass(idSubDeadline, want.String(), sentence("Its ack deadline is %s", d))
	}
	if s.GetRetryPolicy() == nil {
		update(idSubRetry, "It has no retry policy: a message that is given back comes again at once, and again", "set its retry policy to 1s until 600s",
			[]string{"--min-retry-delay=1s", "--max-retry-delay=600s"}, "retry_policy")
	} else {
		a.pass(idSubRetry, want.String(), "It has a retry policy.")
	}
	if ttl, expires := expiration(s); expires {
		update(idSubExpires, fmt.Sprintf("It is deleted, with what waits in it, when nobody reads it for %s", days(ttl)), "let it never expire",
			[]string{"--expiration-period=never"}, "expiration_policy")
	} else {
		a.pass(idSubExpires, want.String(), "It never expires.")
	}
	if kept := s.GetMessageRetentionDuration().AsDuration(); kept < minRetention {
		update(idSubRetention, fmt.Sprintf("It keeps messages for %s: jobs that wait longer are lost without a word", days(kept)), "keep messages for 7 days",
			[]string{"--message-retention-duration=7d"}, "message_retention_duration")
	} else {
		a.pass(idSubRetention, want.String(), sentence("It keeps messages for %s", days(kept)))
	}
	if s.GetEnableExactlyOnceDelivery() {
		a.fail(idSubOnce, Warning, want.String(), "Its delivery is exactly-once, which costs most of the throughput; the ledger does not need it.",
			Fix{Command: a.gcloud("pubsub", "subscriptions", "update", want.id, "--no-enable-exactly-once-delivery"), Terraform: want.terraform()})
	} else {
		a.pass(idSubOnce, want.String(), "It delivers at least once.")
	}
}

// defaultExpiration is how long a subscription without a policy of its own lives unread.
const defaultExpiration = 31 * 24 * time.Hour

// expiration returns after which time unread a subscription is deleted, if it is. A policy without a time says never.
func expiration(s *pubsubpb.Subscription) (ttl time.Duration, expires bool) {
	switch p := s.GetExpirationPolicy(); {
	case p == nil:
		return defaultExpiration, true
	case p.GetTtl() == nil:
		return 0, false
	default:
		return p.GetTtl().AsDuration(), true
	}
}

// days writes a duration as people say it.
func days(d time.Duration) string {
	const day = 24 * time.Hour
	switch n := d / day; {
	case d%day != 0 || n == 0:
		return strings.TrimSuffix(strings.TrimSuffix(d.String(), "0s"), "0m")
	case n == 1:
		return "1 day"
	default:
		return strconv.Itoa(int(n)) + " days"
	}
}
