package doctor

import (
	"context"
	"slices"
	"strings"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/assetmill/assetmill/schemas"
)

const pubsubAPI = "pubsub.googleapis.com"

func (x *exam) topicName(id string) string { return "projects/" + x.cfg.Project + "/topics/" + id }

func (x *exam) subscriptionName(id string) string {
	return "projects/" + x.cfg.Project + "/subscriptions/" + id
}

// schemaFiles are the files that topics' schemas come from.
var schemaFiles = map[string]string{schemas.TopicBatches: "batch.proto", schemas.TopicJobs: "job.proto", schemas.TopicResults: "result.proto"}

// topics returns the topics that a role has to do with.
func (x *exam) topics() []string {
	if x.cfg.Role != Worker {
		return []string{schemas.TopicJobs}
	}
	return []string{schemas.TopicBatches, schemas.TopicJobs, schemas.TopicDead, schemas.TopicResults}
}

func (a *area) checkPubSub(ctx context.Context) {
	ids := a.topics()
	found := make([]*pubsubpb.Topic, len(ids))
	errs := make([]error, len(ids))
	each(len(ids), func(i int) {
		ctx, done := look(ctx)
		defer done()
		found[i], errs[i] = a.cfg.Clients.Topics.GetTopic(ctx, &pubsubpb.GetTopicRequest{Topic: a.topicName(ids[i])})
	})
	for i, id := range ids {
		a.checkTopic(ctx, id, found[i], errs[i])
	}
	a.checkSubscriptions(ctx)
	if !a.cfg.Local.PubSub {
		a.checkNeeds(ctx, onTopic, onSubscription)
	}
}

func (a *area) checkTopic(ctx context.Context, id string, t *pubsubpb.Topic, err error) {
	resource := place{kind: onTopic, name: id}.String()
	switch f, _ := classify(err); {
	case f == missing:
		a.gone[resource] = true
		a.fail(idTopicMissing, Error, resource, "It does not exist.", Fix{Command: a.createTopic(id), Terraform: tfTopic(id)})
		return
	case f == denied:
		a.limited(resource, "its schema and where its messages rest are not checked.", Fix{Command: a.grant(place{kind: onTopic, name: id}, "roles/pubsub.viewer", a.member())})
		return
	case err != nil:
		a.trouble(ctx, pubsubAPI, resource, err)
		return
	}
	a.pass(idTopicMissing, resource, "It exists.")
	if !a.cfg.Local.PubSub {
		a.checkTopicSchema(ctx, id, t)
		a.checkTopicRegion(id, t)
	}
}

func tfTopic(id string) string { return `google_pubsub_topic.this["` + id + `"]` }

func schemaID(topic string) string { return "assetmill-" + topic }

// createTopic is the command that creates a topic; its schema is made first where there may be none.
func (a *area) createTopic(id string) string {
	if schemaFiles[id] == "" {
		return a.gcloud("pubsub", "topics", "create", id)
	}
	return a.createSchema(id) + "; " + a.gcloud("pubsub", "topics", "create", id, "--schema="+schemaID(id), "--message-encoding=json")
}

func (a *area) createSchema(topic string) string {
	return a.gcloud("pubsub", "schemas", "create", schemaID(topic), "--type=protocol-buffer", "--definition-file=schemas/"+schemaFiles[topic])
}

// deletedSchema is what a topic's schema is called when it was deleted.
const deletedSchema = "_deleted-schema_"

func (a *area) checkTopicSchema(ctx context.Context, id string, t *pubsubpb.Topic) {
	resource := place{kind: onTopic, name: id}.String()
	settings := t.GetSchemaSettings()
	want := schemas.TopicSchema(id)
	attach := Fix{
		Command:   a.gcloud("pubsub", "topics", "update", id, "--schema="+schemaID(id), "--message-encoding=json"),
		Terraform: tfTopic(id),
	}
	switch {
	case want == "" && settings == nil:
		a.pass(idTopicSchema, resource, "It takes any message, as it has to.")
	case want == "":
		a.fail(idTopicSchema, Error, resource, "It has a schema, so messages that are no jobs are refused where they should be kept: they come back for ever.",
			Fix{Command: a.gcloud("pubsub", "topics", "update", id, "--clear-schema-settings"), Terraform: tfTopic(id)})
	case settings == nil:
		attach.Command = a.createSchema(id) + "; " + attach.Command
		attach.Terraform = "variable queue.schemas"
		a.fail(idTopicSchema, Info, resource, "It has no schema: messages that are none are found out by workers instead of refused when they are published.", attach)
	case settings.GetSchema() == deletedSchema:
		attach.Command = a.createSchema(id) + "; " + attach.Command
		a.fail(idTopicSchema, Error, resource, "Its schema was deleted, so Pub/Sub refuses every message.", attach)
	case settings.GetEncoding() != pubsubpb.Encoding_JSON:
		a.fail(idTopicSchema, Error, resource, sentence("It takes messages in the encoding %s, and they are JSON", settings.GetEncoding()), attach)
	default:
		a.compareSchema(ctx, id, settings, want)
	}
}

// compareSchema compares the newest revision that the topic takes with this version's definition.
func (a *area) compareSchema(ctx context.Context, id string, settings *pubsubpb.SchemaSettings, want string) {
	resource := place{kind: onTopic, name: id}.String()
	name := settings.GetSchema()
	if last := settings.GetLastRevisionId(); last != "" {
		name += "@" + last
	}
	lookCtx, done := look(ctx)
	defer done()
	have, err := a.cfg.Clients.Schemas.GetSchema(lookCtx, &pubsubpb.GetSchemaRequest{Name: name, View: pubsubpb.SchemaView_FULL})
	schema := settings.GetSchema()[strings.LastIndex(settings.GetSchema(), "/")+1:]
	commit := Fix{
		Command:   a.gcloud("pubsub", "schemas", "commit", schema, "--type=protocol-buffer", "--definition-file=schemas/"+schemaFiles[id]),
		Terraform: `google_pubsub_schema.this["` + id + `"]`,
	}
	switch f, _ := classify(err); {
	case f == denied:
		a.limited("schema "+schema, "it is not compared with this version's.", Fix{Command: a.grant(place{kind: onProject, project: a.cfg.Project}, "roles/pubsub.viewer", a.member())})
		return
	case f == missing:
		commit.Command = a.createSchema(id) + "; " + a.gcloud("pubsub", "topics", "update", id, "--schema="+schemaID(id), "--message-encoding=json")
		a.fail(idTopicSchema, Error, resource, sentence("Its schema %s does not exist, so Pub/Sub refuses every message", schema), commit)
		return
	case err != nil:
		a.trouble(ctx, pubsubAPI, resource, err)
		return
	}
	drift := definitionDrift(want, have.GetDefinition())
	if len(drift) == 0 {
		a.pass(idTopicSchema, resource, "Its schema is this version's.")
		return
	}
	if settings.GetLastRevisionId() != "" {
		commit.Command += " && " + a.gcloud("pubsub", "topics", "update", id, "--schema="+schema, "--message-encoding=json")
	}
	a.fail(idTopicSchema, Error, resource, sentence("Its schema %s is not this version's: %s", schema, enumerate(drift)), commit)
}

// checkTopicRegion checks that messages, which hold prompts, rest where the lanes are, when these are bound to regions.
func (a *area) checkTopicRegion(id string, t *pubsubpb.Topic) {
	home := a.facts.buckets[a.cfg.Bucket].region()
	if !a.regional() || home == "" {
		return
	}
	resource := place{kind: onTopic, name: id}.String()
	allowed := t.GetMessageStoragePolicy().GetAllowedPersistenceRegions()
	fix := Fix{
		Command:   a.gcloud("pubsub", "topics", "update", id, "--message-storage-policy-allowed-regions="+home),
		Terraform: tfTopic(id),
	}
	foreign := slices.DeleteFunc(slices.Clone(allowed), func(r string) bool { return contains(home, r) })
	switch {
	case len(allowed) == 0:
		a.fail(idTopicRegion, Warning, resource, "Its messages may rest in any region, while all lanes are bound to regions.", fix)
	case len(foreign) > 0:
		a.fail(idTopicRegion, Warning, resource, sentence("Its messages may rest in %s, and the assets are in %s", strings.Join(foreign, ", "), home), fix)
	default:
		a.pass(idTopicRegion, resource, "Its messages rest where the assets are.")
	}
}

// maxNamed bounds what one finding lists.
const maxNamed = 12

// enumerate lists what fits into a sentence.
func enumerate(all []string) string {
	if more := len(all) - maxNamed; more > 1 {
		all = append(slices.Clone(all[:maxNamed]), "and more")
	}
	return strings.Join(all, "; ")
}
