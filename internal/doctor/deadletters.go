package doctor

import (
	"context"
	"slices"
	"strings"

	"cloud.google.com/go/iam/apiv1/iampb"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/assetmill/assetmill/schemas"
)

// checkDeadLetters checks when Pub/Sub itself gives up on a message, and where it puts it.
func (a *area) checkDeadLetters(want subscription, s *pubsubpb.Subscription) {
	policy := s.GetDeadLetterPolicy()
	set := func(flags ...string) Fix {
		return Fix{Command: a.gcloud(append([]string{"pubsub", "subscriptions", "update", want.id}, flags...)...), Terraform: want.terraform()}
	}
	right := set("--dead-letter-topic="+schemas.TopicDead, "--max-delivery-attempts=100")
	switch {
	case !want.deadLetters && policy.GetDeadLetterTopic() == "":
		a.pass(idDeadPolicy, want.String(), "What is reviewed stays until somebody has looked at it.")
	case !want.deadLetters:
		a.fail(idDeadPolicy, Warning, want.String(), "It moves what it delivers often to another topic, so dead letters vanish while they are looked at.", set("--clear-dead-letter-policy"))
	case policy.GetDeadLetterTopic() == "":
		a.fail(idDeadPolicy, Warning, want.String(), "It has no dead-letter policy: a message that kills its workers is delivered for ever.", right)
	case policy.GetDeadLetterTopic() != a.topicName(schemas.TopicDead):
		a.fail(idDeadPolicy, Error, want.String(), sentence("Its dead letters go to %s instead of the topic %s, where nobody looks for them", policy.GetDeadLetterTopic(), schemas.TopicDead), right)
	default:
		a.pass(idDeadPolicy, want.String(), "Its dead letters go where they are reviewed.")
	}
	if !want.deadLetters || policy.GetDeadLetterTopic() == "" {
		return
	}
	if n := policy.GetMaxDeliveryAttempts(); n < minAttempts {
		a.fail(idDeadAttempts, Warning, want.String(), sentence("Pub/Sub gives a message up after %d deliveries, and each time that a job is given back counts: jobs that only wait become dead letters, since workers publish them anew after 50", n),
			set("--dead-letter-topic="+schemas.TopicDead, "--max-delivery-attempts=100"))
	} else {
		a.pass(idDeadAttempts, want.String(), sentence("Pub/Sub gives a message up after %d deliveries", n))
	}
}

// checkDeadLetterGrants checks that Pub/Sub's own account may move messages: off the subscriptions, and onto the topic of dead letters.
func (a *area) checkDeadLetterGrants(ctx context.Context, all []subscription, found []*pubsubpb.Subscription) {
	if a.cfg.Local.PubSub || !slices.ContainsFunc(found, func(s *pubsubpb.Subscription) bool { return s.GetDeadLetterPolicy().GetDeadLetterTopic() != "" }) {
		return
	}
	dead := place{kind: onTopic, name: schemas.TopicDead}
	number := a.facts.projects[a.cfg.Project].number
	if number == "" {
		a.limited("project "+a.cfg.Project, "its number is not known, and whether Pub/Sub's own account may move dead letters is not checked.",
			Fix{Command: a.grant(place{kind: onProject, project: a.cfg.Project}, "roles/browser", a.member())})
		return
	}
	agent := "serviceAccount:service-" + number + "@gcp-sa-pubsub.iam.gserviceaccount.com"
	a.checkDeadLetterGrant(ctx, dead, agent, publisher, tfTopicGrants, "dead letters are never published, and what kills its workers comes back for ever")
	for i, s := range all {
		if found[i].GetDeadLetterPolicy().GetDeadLetterTopic() != "" {
			a.checkDeadLetterGrant(ctx, place{kind: onSubscription, name: s.id}, agent, subscriber, tfSubGrants, "dead letters stay on the subscription and are delivered again")
		}
	}
}

func (a *area) checkDeadLetterGrant(ctx context.Context, on place, agent, role, terraform, without string) {
	if a.gone[on.String()] {
		return
	}
	policy, err := a.pubsubPolicy(ctx, on)
	switch f, _ := classify(err); {
	case f == denied:
		a.limited(on.String(), "whether Pub/Sub's own account has "+role+" on it is not checked.", Fix{Command: a.grant(place{kind: onProject, project: a.cfg.Project}, "roles/iam.securityReviewer", a.member())})
		return
	case err != nil:
		a.trouble(ctx, pubsubAPI, on.String(), err)
		return
	}
	own := a.facts.projects[a.cfg.Project]
	roles := []string{role, "roles/pubsub.editor", "roles/pubsub.admin", "roles/editor", "roles/owner"}
	switch granted(slices.Concat(policy, own.policy), agent, roles) {
	case yes:
		a.pass(idDeadGrants, on.String(), "Pub/Sub's own account has "+role+" on it.")
	case perhaps:
		a.limited(on.String(), "whether a custom role of Pub/Sub's own account is enough is not known.", Fix{})
	default:
		a.fail(idDeadGrants, Error, on.String(), sentence("Pub/Sub's own account lacks %s on it: %s", role, without), Fix{Command: a.grant(on, role, agent), Terraform: terraform})
	}
}

func (a *area) pubsubPolicy(ctx context.Context, on place) ([]binding, error) {
	ctx, done := look(ctx)
	defer done()
	options := &iampb.GetPolicyOptions{RequestedPolicyVersion: policyVersion}
	var policy *iampb.Policy
	var err error
	if on.kind == onTopic {
		policy, err = a.cfg.Clients.Topics.GetIamPolicy(ctx, &iampb.GetIamPolicyRequest{Resource: a.topicName(on.name), Options: options})
	} else {
		policy, err = a.cfg.Clients.Subscriptions.GetIamPolicy(ctx, &iampb.GetIamPolicyRequest{Resource: a.subscriptionName(on.name), Options: options})
	}
	var all []binding
	for _, b := range policy.GetBindings() {
		all = append(all, binding{b.GetRole(), b.GetMembers()})
	}
	return all, err
}

// answer is what a policy says, as far as it can be told.
type answer int

const (
	no answer = iota
	perhaps
	yes
)

// granted reports whether a member has one of the roles. What a custom role permits is not known.
func granted(policy []binding, member string, roles []string) answer {
	found := no
	for _, b := range policy {
		if !slices.ContainsFunc(b.members, func(m string) bool { return m == member || m == "allUsers" || m == "allAuthenticatedUsers" }) {
			continue
		}
		if slices.Contains(roles, b.role) {
			return yes
		}
		if !strings.HasPrefix(b.role, "roles/") {
			found = perhaps
		}
	}
	return found
}
