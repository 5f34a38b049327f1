package doctor_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/api/bigquery/v2"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/assetmill/assetmill/internal/blob"
	"github.com/assetmill/assetmill/internal/doctor"
	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/schemas"
	"github.com/assetmill/assetmill/worker"
	"github.com/assetmill/assetmill/worker/lanes"
	"github.com/assetmill/assetmill/worker/vertex"
)

// lanesFile is what Terraform gives a deployment in europe-west4 with us-central1 as an extra region.
const lanesFile = `{"prefer": "global", "buckets": {"us-central1": "mill-test-assets-us-central1"}, "lanes": [
	{"model": "gemini-3-pro-image", "location": "global", "tier": "standard"},
	{"model": "gemini-3-pro-image", "location": "global", "tier": "batch"},
	{"model": "gemini-2.5-flash-image", "location": "europe-west4", "tier": "standard"},
	{"model": "gemini-2.5-flash-image", "location": "us-central1", "tier": "standard"}]}`

// regionalLanes are bound to one region.
const regionalLanes = `{"prefer": "europe-west4", "lanes": [{"model": "gemini-2.5-flash-image", "location": "europe-west4", "tier": "standard"}]}`

func parseLanes(t *testing.T, text string) *lanes.Config {
	t.Helper()
	cfg, err := lanes.Parse("lanes.json", []byte(text), jobs.DefaultCatalogue())
	if err != nil {
		t.Fatal(err)
	}
	if err := cfg.SetProject(projectID); err != nil {
		t.Fatal(err)
	}
	return cfg
}

// config examines the cloud as the worker.
func (c *cloud) config() doctor.Config {
	topics, subscriptions, definitions := c.pubsubClients()
	base := c.rest.URL
	cfg := doctor.Config{
		Project: projectID, Bucket: assetsBucket, WorkBucket: workBucket, Dataset: datasetID, Role: doctor.Worker,
		Identity: doctor.Identity{Email: workerAccount}, References: []string{brandBucket},
		Clients: doctor.Clients{
			HTTP: &http.Client{}, Topics: topics, Subscriptions: subscriptions, Schemas: definitions,
			Endpoints: doctor.Endpoints{Storage: base + "/storage/v1/", BigQuery: base + "/bigquery/v2/", ServiceUsage: base + "/", ResourceManager: base + "/", IAM: base + "/"},
		},
	}
	setLanes(c.t, &cfg, lanesFile)
	model, err := vertex.New(c.t.Context(), vertex.Config{BaseURL: base, NoAuth: true, Budget: blob.NewBudget(1 << 20)})
	c.must(err)
	c.t.Cleanup(model.Close)
	cfg.Clients.AskLane = model.Check
	return cfg
}

// setLanes gives a worker another file of lanes.
func setLanes(t *testing.T, cfg *doctor.Config, text string) {
	cfg.Lanes, cfg.OwnLanes, cfg.First = parseLanes(t, text), true, []worker.Lane{}
	for _, l := range cfg.Lanes.Lanes {
		cfg.First = append(cfg.First, l.Lane)
	}
}

func run(t *testing.T, cfg doctor.Config) *doctor.Report {
	t.Helper()
	r, err := doctor.Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// serious returns the findings at warning or above.
func serious(r *doctor.Report) []doctor.Finding {
	return slices.DeleteFunc(slices.Clone(r.Findings), func(f doctor.Finding) bool { return f.Severity < doctor.Warning })
}

func wantHealthy(t *testing.T, r *doctor.Report) {
	t.Helper()
	for _, f := range serious(r) {
		t.Errorf("%s %s, %s: %s fix: %s", f.Severity, f.ID, f.Resource, f.Problem, f.Fix.Command)
	}
}

// Each account of Terraform's has what its role needs, with no more grants than Terraform makes.
func TestAHealthyDeployment(t *testing.T) {
	t.Parallel()
	for role, account := range map[doctor.Role]string{doctor.Worker: workerAccount, doctor.Submitter: submitterAccount, doctor.Console: consoleAccount} {
		t.Run(string(role), func(t *testing.T) {
			c := newCloud(t)
			for _, g := range auditorGrants {
				c.revoke("serviceAccount:"+workerAccount, g)
			}
			c.caller = "serviceAccount:" + account
			cfg := c.config()
			cfg.Role, cfg.Identity = role, doctor.Identity{Email: account}
			r := run(t, cfg)
			wantHealthy(t, r)
			if r.Count(doctor.OK) < 15 {
				t.Errorf("only %d checks passed", r.Count(doctor.OK))
			}
		})
	}
}

// An account that may look at everything leaves nothing unchecked.
func TestAHealthyDeploymentSeenWhole(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	r := run(t, c.config())
	wantHealthy(t, r)
	for _, f := range r.Findings {
		if f.ID == "access.limited" {
			t.Errorf("not checked: %s: %s", f.Resource, f.Problem)
		}
	}
	passed := map[string]bool{}
	for _, f := range r.Findings {
		if f.Severity == doctor.OK {
			passed[f.ID] = true
		}
	}
	for _, check := range doctor.Checks() {
		// Some checks can't pass: they are notes, or are found by the caller, or stand for another that failed.
		never := check.Area == "Settings" || check.Worst == doctor.Info ||
			slices.Contains([]string{"credentials.missing", "credentials.quota-project", "service.unreachable", "lane.denied", "lane.unchecked", "quota.limit", "topic.region",
				"subscription.topic", "subscription.filter"}, check.ID)
		if !passed[check.ID] && !never {
			t.Errorf("%s was not checked", check.ID)
		}
	}
}

// defect is one thing that is wrong, and what the doctor must say of it.
type defect struct {
	name     string
	spoil    func(c *cloud, cfg *doctor.Config)
	id       string
	severity doctor.Severity
	resource string
	fix      string // that the command begins with
	tf       string // that the Terraform hint contains
	mends    bool   // doctor --fix must be able to do it
	manual   string // why the fix can't be tried here
}

const worksFor = "--member=serviceAccount:assetmill-worker@mill-test.iam.gserviceaccount.com"

func revoked(member, grant string) func(*cloud, *doctor.Config) {
	return func(c *cloud, _ *doctor.Config) { c.revoke(member, grant) }
}

func changed(subscription string, change func(*pubsubpb.Subscription)) func(*cloud, *doctor.Config) {
	return func(c *cloud, _ *doctor.Config) { c.sub(subscription, change) }
}

func rules(bucket string, change func(rules []any) []any) func(*cloud, *doctor.Config) {
	return func(c *cloud, _ *doctor.Config) {
		lifecycle := c.buckets[bucket]["lifecycle"].(map[string]any)
		lifecycle["rule"] = change(lifecycle["rule"].([]any))
	}
}

// without leaves out the rules that mention a folder.
func without(folder string) func([]any) []any {
	return func(all []any) []any {
		return slices.DeleteFunc(all, func(r any) bool {
			text, _ := json.Marshal(r)
			return bytes.Contains(text, []byte(`"`+folder+`"`))
		})
	}
}

func added(rule string) func([]any) []any {
	return func(all []any) []any {
		var r any
		if err := json.Unmarshal([]byte(rule), &r); err != nil {
			panic(err)
		}
		return append(all, r)
	}
}

func table(name string, change func(*bigquery.Table)) func(*cloud, *doctor.Config) {
	return func(c *cloud, _ *doctor.Config) { change(c.tables[name]) }
}

const (
	workerMember = "serviceAccount:" + workerAccount
	topicBind    = "gcloud pubsub topics add-iam-policy-binding "
	subBind      = "gcloud pubsub subscriptions add-iam-policy-binding "
	subUpdate    = "gcloud pubsub subscriptions update "
)

var defects = []defect{
	// APIs and permissions
	{name: "Vertex AI is not enabled", spoil: func(c *cloud, _ *doctor.Config) { c.apis["aiplatform.googleapis.com"] = false },
		id: "api.disabled", severity: doctor.Error, resource: "API aiplatform.googleapis.com in project mill-test",
		fix: "gcloud services enable aiplatform.googleapis.com --project=mill-test", tf: `google_project_service.this["aiplatform"]`},
	{name: "the write API is not enabled", spoil: func(c *cloud, _ *doctor.Config) { c.apis["bigquerystorage.googleapis.com"] = false },
		id: "api.disabled", severity: doctor.Error, resource: "API bigquerystorage.googleapis.com in project mill-test",
		fix: "gcloud services enable bigquerystorage.googleapis.com --project=mill-test", tf: `google_project_service.this["bigquerystorage"]`},
	{name: "Pub/Sub is not enabled", spoil: func(c *cloud, _ *doctor.Config) { c.apis["pubsub.googleapis.com"] = false },
		id: "api.disabled", severity: doctor.Error, resource: "API pubsub.googleapis.com in project mill-test", fix: "gcloud services enable pubsub.googleapis.com", tf: `google_project_service.this["pubsub"]`},
	{name: "Cloud Storage is not enabled", spoil: func(c *cloud, _ *doctor.Config) { c.apis["storage.googleapis.com"] = false },
		id: "api.disabled", severity: doctor.Error, resource: "API storage.googleapis.com in project mill-test", fix: "gcloud services enable storage.googleapis.com", tf: `google_project_service.this["storage"]`},
	{name: "BigQuery is not enabled, and nobody may look", spoil: func(c *cloud, _ *doctor.Config) {
		c.apis["bigquery.googleapis.com"] = false
		c.revoke(workerMember, "roles/serviceusage.serviceUsageViewer on project")
	},
		id: "api.disabled", severity: doctor.Error, resource: "API bigquery.googleapis.com in project mill-test", fix: "gcloud services enable bigquery.googleapis.com", tf: `google_project_service.this["bigquery"]`},
	{name: "results can't be announced", spoil: revoked(workerMember, "roles/pubsub.publisher on topic results"),
		id: "permission.missing", severity: doctor.Error, resource: "topic results",
		fix: topicBind + "results " + worksFor + " --role=roles/pubsub.publisher --project=mill-test", tf: "google_pubsub_topic_iam_member.this"},
	{name: "jobs can't be received", spoil: revoked(workerMember, "roles/pubsub.subscriber on subscription jobs-online"),
		id: "permission.missing", severity: doctor.Error, resource: "subscription jobs-online",
		fix: subBind + "jobs-online " + worksFor + " --role=roles/pubsub.subscriber --project=mill-test", tf: "google_pubsub_subscription_iam_member.this"},
	{name: "the ledger can't be written", spoil: func(c *cloud, _ *doctor.Config) {
		c.revoke(workerMember, "roles/storage.objectUser on bucket mill-test-work")
		c.grant(workerMember, "roles/storage.objectViewer on bucket mill-test-work")
	},
		id: "permission.missing", severity: doctor.Error, resource: "bucket gs://mill-test-work",
		fix: "gcloud storage buckets add-iam-policy-binding gs://mill-test-work " + worksFor + " --role=roles/storage.objectUser", tf: "google_storage_bucket_iam_member.work"},
	{name: "images can't be stored", spoil: revoked(workerMember, "roles/storage.objectCreator on bucket mill-test-assets"),
		id: "permission.missing", severity: doctor.Error, resource: "bucket gs://mill-test-assets",
		fix: "gcloud storage buckets add-iam-policy-binding gs://mill-test-assets " + worksFor + " --role=roles/storage.objectCreator", tf: "google_storage_bucket_iam_member.assets"},
	{name: "images that models wrote can't be cleared away, and there is no managed folder", spoil: func(c *cloud, _ *doctor.Config) {
		c.revoke(workerMember, "roles/storage.objectUser on folder mill-test-assets/straight/")
		c.revoke(vertexAgent, "roles/storage.objectUser on folder mill-test-assets/straight/")
		c.grant(vertexAgent, "roles/storage.objectUser on bucket mill-test-assets")
		delete(c.folders, "mill-test-assets/straight/")
	},
		id: "permission.missing", severity: doctor.Warning, resource: "folder gs://mill-test-assets/straight/",
		fix: "gcloud storage managed-folders create gs://mill-test-assets/straight/ --project=mill-test && gcloud storage managed-folders add-iam-policy-binding gs://mill-test-assets/straight/ " + worksFor,
		tf:  "google_storage_managed_folder_iam_member.straight"},
	{name: "batches can't be run", spoil: func(c *cloud, _ *doctor.Config) {
		c.revoke(workerMember, "projects/mill-test/roles/assetmillModelCaller on project")
		c.grant(workerMember, "projects/mill-test/roles/onlyCalls on project")
	},
		id: "permission.missing", severity: doctor.Error, resource: "project mill-test",
		fix: "gcloud projects add-iam-policy-binding mill-test " + worksFor + " --role=roles/aiplatform.user --condition=None", tf: "google_project_iam_member.this"},
	{name: "rows can't be appended", spoil: revoked(workerMember, "projects/mill-test/roles/assetmillRowAppender on table generations_raw"),
		id: "permission.missing", severity: doctor.Error, resource: "table generations_raw",
		fix: "bq add-iam-policy-binding " + worksFor + " --role=roles/bigquery.dataEditor --table mill-test:assetmill.generations_raw", tf: "google_bigquery_table_iam_member.append"},
	{name: "the dataset can't be looked at", spoil: revoked(workerMember, "roles/bigquery.metadataViewer on dataset assetmill"),
		id: "permission.missing", severity: doctor.Error, resource: "dataset assetmill",
		fix: "bq query --project_id=mill-test --use_legacy_sql=false 'GRANT `roles/bigquery.metadataViewer` ON SCHEMA `mill-test.assetmill`", tf: "google_bigquery_dataset_access.lineage"},

	// Topics
	{name: "the topic of batches is missing", spoil: func(c *cloud, _ *doctor.Config) {
		c.must1(c.pubsub.GServer.DeleteTopic(c.t.Context(), &pubsubpb.DeleteTopicRequest{Topic: topicName("batches")}))
		c.sub("batches", func(s *pubsubpb.Subscription) { s.Topic = topicName("batches") })
	},
		id: "topic.missing", severity: doctor.Error, resource: "topic batches",
		fix: "gcloud pubsub schemas create assetmill-batches --type=protocol-buffer --definition-file=schemas/batch.proto --project=mill-test; gcloud pubsub topics create batches --schema=assetmill-batches --message-encoding=json --project=mill-test",
		tf:  `google_pubsub_topic.this["batches"]`},
	{name: "the schema of jobs is an older one", spoil: func(c *cloud, _ *doctor.Config) {
		c.define("jobs", strings.Replace(schemas.TopicSchema("jobs"), "  repeated Turn turns = 22;\n", "", 1))
	},
		id: "topic.schema", severity: doctor.Error, resource: "topic jobs",
		fix: "gcloud pubsub schemas commit assetmill-jobs --type=protocol-buffer --definition-file=schemas/job.proto --project=mill-test", tf: `google_pubsub_schema.this["jobs"]`},
	{name: "the schema of results was deleted", spoil: func(c *cloud, _ *doctor.Config) {
		c.topic("results", func(t *pubsubpb.Topic) { t.SchemaSettings.Schema = "_deleted-schema_" })
	},
		id: "topic.schema", severity: doctor.Error, resource: "topic results", fix: "gcloud pubsub schemas create assetmill-results --type=protocol-buffer --definition-file=schemas/result.proto", tf: `google_pubsub_topic.this["results"]`},
	{name: "results are taken as binary", spoil: func(c *cloud, _ *doctor.Config) {
		c.topic("results", func(t *pubsubpb.Topic) { t.SchemaSettings.Encoding = pubsubpb.Encoding_BINARY })
	},
		id: "topic.schema", severity: doctor.Error, resource: "topic results", fix: "gcloud pubsub topics update results --schema=assetmill-results --message-encoding=json", tf: `google_pubsub_topic.this["results"]`},
	{name: "dead letters have a schema", spoil: func(c *cloud, _ *doctor.Config) {
		c.topic("jobs-dead", func(t *pubsubpb.Topic) {
			t.SchemaSettings = &pubsubpb.SchemaSettings{Schema: schemaName("jobs"), Encoding: pubsubpb.Encoding_JSON}
		})
	},
		id: "topic.schema", severity: doctor.Error, resource: "topic jobs-dead", fix: "gcloud pubsub topics update jobs-dead --clear-schema-settings", tf: `google_pubsub_topic.this["jobs-dead"]`},
	{name: "lanes are bound to a region, and messages are not", spoil: func(c *cloud, cfg *doctor.Config) {
		setLanes(c.t, cfg, regionalLanes)
		c.topic("jobs", func(t *pubsubpb.Topic) { t.MessageStoragePolicy = nil })
	},
		id: "topic.region", severity: doctor.Warning, resource: "topic jobs", fix: "gcloud pubsub topics update jobs --message-storage-policy-allowed-regions=europe-west4", tf: `google_pubsub_topic.this["jobs"]`},

	// Subscriptions
	{name: "nobody keeps dead letters", spoil: func(c *cloud, _ *doctor.Config) {
		c.must1(c.pubsub.GServer.DeleteSubscription(c.t.Context(), &pubsubpb.DeleteSubscriptionRequest{Subscription: subscriptionName("jobs-dead-review")}))
	},
		id: "subscription.missing", severity: doctor.Error, resource: "subscription jobs-dead-review",
		fix: "gcloud pubsub subscriptions create jobs-dead-review --topic=jobs-dead --ack-deadline=60 --expiration-period=never", tf: `google_pubsub_subscription.this["jobs-dead-review"]`},
	{name: "batch jobs are called online", spoil: changed("jobs-online", func(s *pubsubpb.Subscription) { s.Filter = "" }),
		id: "subscription.filter", severity: doctor.Error, resource: "subscription jobs-online",
		fix: "gcloud pubsub subscriptions delete jobs-online --project=mill-test && gcloud pubsub subscriptions create jobs-online --topic=jobs ", tf: `google_pubsub_subscription.this["jobs-online"]`},
	{name: "the topic of a subscription was deleted and made again", spoil: changed("batches", func(s *pubsubpb.Subscription) { s.Topic = "_deleted-topic_" }),
		id: "subscription.topic", severity: doctor.Error, resource: "subscription batches",
		fix: "gcloud pubsub subscriptions delete batches --project=mill-test && gcloud pubsub subscriptions create batches --topic=batches --ack-deadline=600", tf: `google_pubsub_subscription.this["batches"]`},
	{name: "a subscription pushes", spoil: changed("jobs-online", func(s *pubsubpb.Subscription) {
		s.PushConfig = &pubsubpb.PushConfig{PushEndpoint: "https://example.com/"}
	}),
		id: "subscription.pull", severity: doctor.Error, resource: "subscription jobs-online", fix: subUpdate + "jobs-online --push-endpoint= --project=mill-test", tf: `google_pubsub_subscription.this["jobs-online"]`},
	{name: "the ack deadline is the default", spoil: changed("jobs-online", func(s *pubsubpb.Subscription) { s.AckDeadlineSeconds = 10 }),
		id: "subscription.ack-deadline", severity: doctor.Warning, resource: "subscription jobs-online", fix: subUpdate + "jobs-online --ack-deadline=60", tf: "google_pubsub_subscription.this", mends: true},
	{name: "there is no retry policy", spoil: changed("jobs-batch", func(s *pubsubpb.Subscription) { s.RetryPolicy = nil }),
		id: "subscription.retry", severity: doctor.Warning, resource: "subscription jobs-batch", fix: subUpdate + "jobs-batch --min-retry-delay=1s --max-retry-delay=600s", tf: "google_pubsub_subscription.this", mends: true},
	{name: "a subscription expires", spoil: changed("jobs-dead-review", func(s *pubsubpb.Subscription) {
		s.ExpirationPolicy = &pubsubpb.ExpirationPolicy{Ttl: durationpb.New(31 * 24 * time.Hour)}
	}),
		id: "subscription.expiration", severity: doctor.Warning, resource: "subscription jobs-dead-review", fix: subUpdate + "jobs-dead-review --expiration-period=never", tf: "google_pubsub_subscription.this", mends: true},
	{name: "messages are kept for a day", spoil: changed("jobs-online", func(s *pubsubpb.Subscription) { s.MessageRetentionDuration = durationpb.New(24 * time.Hour) }),
		id: "subscription.retention", severity: doctor.Warning, resource: "subscription jobs-online", fix: subUpdate + "jobs-online --message-retention-duration=7d", tf: "google_pubsub_subscription.this", mends: true},
	{name: "delivery is exactly-once", spoil: changed("jobs-online", func(s *pubsubpb.Subscription) { s.EnableExactlyOnceDelivery = true }),
		id: "subscription.exactly-once", severity: doctor.Warning, resource: "subscription jobs-online", fix: subUpdate + "jobs-online --no-enable-exactly-once-delivery", tf: "google_pubsub_subscription.this"},
	{name: "poison is delivered for ever", spoil: changed("jobs-online", func(s *pubsubpb.Subscription) { s.DeadLetterPolicy = nil }),
		id: "deadletter.policy", severity: doctor.Warning, resource: "subscription jobs-online", fix: subUpdate + "jobs-online --dead-letter-topic=jobs-dead --max-delivery-attempts=100", tf: "google_pubsub_subscription.this"},
	{name: "dead letters go elsewhere", spoil: changed("jobs-online", func(s *pubsubpb.Subscription) { s.DeadLetterPolicy.DeadLetterTopic = topicName("results") }),
		id: "deadletter.policy", severity: doctor.Error, resource: "subscription jobs-online", fix: subUpdate + "jobs-online --dead-letter-topic=jobs-dead --max-delivery-attempts=100", tf: "google_pubsub_subscription.this"},
	{name: "five deliveries are all", spoil: changed("jobs-online", func(s *pubsubpb.Subscription) { s.DeadLetterPolicy.MaxDeliveryAttempts = 5 }),
		id: "deadletter.attempts", severity: doctor.Warning, resource: "subscription jobs-online", fix: subUpdate + "jobs-online --dead-letter-topic=jobs-dead --max-delivery-attempts=100", tf: "google_pubsub_subscription.this"},
	{name: "Pub/Sub may not publish dead letters", spoil: revoked(pubsubAgent, "roles/pubsub.publisher on topic jobs-dead"),
		id: "deadletter.grants", severity: doctor.Error, resource: "topic jobs-dead",
		fix: topicBind + "jobs-dead --member=" + pubsubAgent + " --role=roles/pubsub.publisher --project=mill-test", tf: "google_pubsub_topic_iam_member.this"},
	{name: "Pub/Sub may not take messages off", spoil: revoked(pubsubAgent, "roles/pubsub.subscriber on subscription jobs-batch"),
		id: "deadletter.grants", severity: doctor.Error, resource: "subscription jobs-batch",
		fix: subBind + "jobs-batch --member=" + pubsubAgent + " --role=roles/pubsub.subscriber --project=mill-test", tf: "google_pubsub_subscription_iam_member.this"},

	// Buckets
	{name: "a bucket is missing", spoil: func(c *cloud, _ *doctor.Config) { delete(c.buckets, workBucket) },
		id: "bucket.missing", severity: doctor.Error, resource: "bucket gs://mill-test-work",
		fix: "gcloud storage buckets create gs://mill-test-work --location=", tf: "google_storage_bucket.work", manual: "grants and rules of the bucket are gone as well"},
	{name: "access is not uniform", spoil: func(c *cloud, _ *doctor.Config) {
		c.buckets[assetsBucket]["iamConfiguration"].(map[string]any)["uniformBucketLevelAccess"] = map[string]any{"enabled": false}
	},
		id: "bucket.uniform-access", severity: doctor.Warning, resource: "bucket gs://mill-test-assets", fix: "gcloud storage buckets update gs://mill-test-assets --uniform-bucket-level-access", tf: "google_storage_bucket.assets"},
	{name: "a bucket could be made public", spoil: func(c *cloud, _ *doctor.Config) {
		c.buckets[workBucket]["iamConfiguration"].(map[string]any)["publicAccessPrevention"] = "inherited"
	},
		id: "bucket.public-access", severity: doctor.Warning, resource: "bucket gs://mill-test-work", fix: "gcloud storage buckets update gs://mill-test-work --public-access-prevention", tf: "google_storage_bucket.work"},
	{name: "a bucket is public", spoil: func(c *cloud, _ *doctor.Config) {
		c.buckets[assetsBucket]["iamConfiguration"].(map[string]any)["publicAccessPrevention"] = "inherited"
		c.grant("allUsers", "roles/storage.objectViewer on bucket mill-test-assets")
	},
		id: "bucket.public-access", severity: doctor.Error, resource: "bucket gs://mill-test-assets", fix: "gcloud storage buckets update gs://mill-test-assets --public-access-prevention", tf: "google_storage_bucket.assets"},
	{name: "what is overwritten is kept", spoil: func(c *cloud, _ *doctor.Config) {
		c.buckets[workBucket]["softDeletePolicy"] = map[string]any{"retentionDurationSeconds": "604800"}
	},
		id: "bucket.soft-delete", severity: doctor.Warning, resource: "bucket gs://mill-test-work", fix: "gcloud storage buckets update gs://mill-test-work --clear-soft-delete", tf: "google_storage_bucket.work"},
	{name: "a retention class is not kept", spoil: rules(assetsBucket, without("90d/")),
		id: "bucket.lifecycle", severity: doctor.Warning, resource: "bucket gs://mill-test-assets", fix: `echo '{"rule":[`, tf: "google_storage_bucket.assets"},
	{name: "a retention class is kept for too long", spoil: rules(extraBucket, func(all []any) []any {
		return added(`{"action":{"type":"Delete"},"condition":{"age":60,"matchesPrefix":["30d/"]}}`)(without("30d/")(all))
	}),
		id: "bucket.lifecycle", severity: doctor.Warning, resource: "bucket gs://mill-test-assets-us-central1", fix: `echo '{"rule":[`, tf: "google_storage_bucket.assets"},
	{name: "signs of life stay", spoil: rules(workBucket, without("workers/")),
		id: "bucket.lifecycle", severity: doctor.Warning, resource: "bucket gs://mill-test-work", fix: `echo '{"rule":[`, tf: "google_storage_bucket.work", mends: true},
	{name: "the ledger is deleted after a month", spoil: rules(workBucket, added(`{"action":{"type":"Delete"},"condition":{"age":30,"matchesPrefix":["ledger/"]}}`)),
		id: "bucket.lifecycle-deletes", severity: doctor.Error, resource: "bucket gs://mill-test-work", fix: `echo '{"rule":[`, tf: "google_storage_bucket.work"},
	{name: "everything is deleted after a year", spoil: rules(assetsBucket, added(`{"action":{"type":"Delete"},"condition":{"age":400,"matchesStorageClass":["STANDARD"]}}`)),
		id: "bucket.lifecycle-deletes", severity: doctor.Error, resource: "bucket gs://mill-test-assets", fix: `echo '{"rule":[`, tf: "google_storage_bucket.assets"},
	{name: "a region's bucket is elsewhere", spoil: func(c *cloud, _ *doctor.Config) { c.buckets[extraBucket]["location"] = "US-EAST1" },
		id: "bucket.location", severity: doctor.Error, resource: "bucket gs://mill-test-assets-us-central1",
		fix: "gcloud storage buckets create gs://mill-test-assets-us-central1 --location=us-central1", tf: "extra_regions", manual: "a bucket's place can't be changed"},
	{name: "a region has no bucket", spoil: func(c *cloud, cfg *doctor.Config) {
		setLanes(c.t, cfg, strings.Replace(lanesFile, `{"us-central1": "mill-test-assets-us-central1"}`, `{}`, 1))
	},
		id: "bucket.location", severity: doctor.Warning, resource: "region us-central1",
		fix: "gcloud storage buckets create gs://mill-test-assets-us-central1 --location=us-central1", tf: "extra_regions", manual: "the file of lanes has to be changed too"},
	{name: "Vertex can't read batches", spoil: revoked(vertexAgent, "roles/storage.objectUser on folder mill-test-work/batches/"),
		id: "agent.access", severity: doctor.Error, resource: "folder gs://mill-test-work/batches/",
		fix: "gcloud storage managed-folders add-iam-policy-binding gs://mill-test-work/batches/ --member=" + vertexAgent + " --role=roles/storage.objectUser", tf: "google_storage_managed_folder_iam_member.work"},
	{name: "Vertex can't read references", spoil: revoked(vertexAgent, "roles/storage.objectViewer on bucket brand-assets"),
		id: "agent.access", severity: doctor.Error, resource: "bucket gs://brand-assets",
		fix: "gcloud storage buckets add-iam-policy-binding gs://brand-assets --member=" + vertexAgent + " --role=roles/storage.objectViewer", tf: "google_storage_bucket_iam_member.references"},

	// BigQuery
	{name: "the dataset is missing", spoil: func(c *cloud, _ *doctor.Config) { c.dataset = nil },
		id: "dataset.missing", severity: doctor.Error, resource: "dataset assetmill", fix: "bq mk --dataset --location=europe-west4 mill-test:assetmill", tf: "google_bigquery_dataset.lineage"},
	{name: "the dataset is elsewhere", spoil: func(c *cloud, _ *doctor.Config) { c.dataset.Location = "US" },
		id: "dataset.location", severity: doctor.Warning, resource: "dataset assetmill", fix: "bq mk --dataset --location=europe-west4 ", tf: "variable region", manual: "a dataset can't be moved"},
	{name: "new tables expire", spoil: func(c *cloud, _ *doctor.Config) { c.dataset.DefaultTableExpirationMs = 5184000000 },
		id: "table.expiration", severity: doctor.Warning, resource: "dataset assetmill", fix: "bq update --default_table_expiration=0 mill-test:assetmill", tf: "google_bigquery_dataset.lineage"},
	{name: "a table is missing", spoil: func(c *cloud, _ *doctor.Config) { delete(c.tables, "batches_raw") },
		id: "table.missing", severity: doctor.Error, resource: "table batches_raw", fix: "bq mk --table --schema=schemas/bigquery/batches_raw.json ", tf: `google_bigquery_table.this["batches_raw"]`},
	{name: "a column is missing", spoil: table("generations_raw", func(t *bigquery.Table) {
		t.Schema.Fields = slices.DeleteFunc(t.Schema.Fields, func(f *bigquery.TableFieldSchema) bool { return f.Name == "turns" })
	}),
		id: "table.columns", severity: doctor.Error, resource: "table generations_raw", fix: "bq update mill-test:assetmill.generations_raw schemas/bigquery/generations_raw.json", tf: `google_bigquery_table.this["generations_raw"]`},
	{name: "a column has another type", spoil: table("attempts_raw", func(t *bigquery.Table) {
		for _, f := range t.Schema.Fields {
			if f.Name == "cost_usd" {
				f.Type = "FLOAT"
			}
		}
	}),
		id: "table.columns", severity: doctor.Error, resource: "table attempts_raw", fix: "bq query --project_id=mill-test --use_legacy_sql=false 'ALTER TABLE `mill-test.assetmill.attempts_raw` RENAME TO `attempts_raw_before`' && bq mk --table ", tf: `google_bigquery_table.this["attempts_raw"]`},
	{name: "a table is not partitioned", spoil: table("generations_raw", func(t *bigquery.Table) { t.TimePartitioning = nil }),
		id: "table.layout", severity: doctor.Warning, resource: "table generations_raw", fix: "bq query ", tf: `google_bigquery_table.this["generations_raw"]`},
	{name: "a table is clustered otherwise", spoil: table("generations_raw", func(t *bigquery.Table) { t.Clustering.Fields = []string{"model"} }),
		id: "table.layout", severity: doctor.Warning, resource: "table generations_raw", fix: "bq update --clustering_fields=campaign,model,outcome,submission mill-test:assetmill.generations_raw", tf: `google_bigquery_table.this["generations_raw"]`},
	{name: "a table expires", spoil: table("generations_raw", func(t *bigquery.Table) { t.ExpirationTime = 1800000000000 }),
		id: "table.expiration", severity: doctor.Error, resource: "table generations_raw", fix: "bq update --expiration=0 mill-test:assetmill.generations_raw", tf: `google_bigquery_table.this["generations_raw"]`},
	{name: "a view is missing", spoil: func(c *cloud, _ *doctor.Config) { delete(c.tables, "generations") },
		id: "view.missing", severity: doctor.Warning, resource: "view generations", fix: "bq mk --use_legacy_sql=false ", tf: `google_bigquery_table.base_view["assetmill.generations"]`, mends: true},
	{name: "a view is an older one", spoil: table("assets", func(t *bigquery.Table) { t.View.Query = "SELECT job_id FROM `mill-test.assetmill.generations`" }),
		id: "view.sql", severity: doctor.Warning, resource: "view assets", fix: "bq update --use_legacy_sql=false ", tf: `google_bigquery_table.view["assetmill.assets"]`},

	// Vertex AI, and the rest
	{name: "a model is not at its location", spoil: func(c *cloud, _ *doctor.Config) { delete(c.models, "us-central1/gemini-2.5-flash-image") },
		id: "lane.model", severity: doctor.Error, resource: "lane gemini-2.5-flash-image/us-central1/standard", tf: "variable models", manual: "the file of lanes has to be changed"},
	{name: "a quota is 0", spoil: func(c *cloud, _ *doctor.Config) {
		c.quota = []any{quotaOf("gemini-2.5-flash-image", "europe-west4", 0)}
	},
		id: "quota.limit", severity: doctor.Warning, manual: "Google grants quota",
		resource: "quota aiplatform.googleapis.com/generate_content_requests_per_minute_per_project_per_base_model of gemini-2.5-flash-image at europe-west4"},
	{name: "the clock is slow", spoil: func(c *cloud, _ *doctor.Config) { c.skew = 5 * time.Minute },
		id: "credentials.clock", severity: doctor.Warning, resource: "clock", fix: "sudo timedatectl set-ntp true", manual: "it is this machine's clock"},
	{name: "a person has no quota project", spoil: func(c *cloud, cfg *doctor.Config) {
		for _, role := range []string{"roles/iam.securityReviewer", "roles/pubsub.viewer"} {
			c.grant("user:ann@example.com", role+" on project")
		}
		cfg.Identity = doctor.Identity{Email: "ann@example.com", Person: true}
	},
		id: "credentials.quota-project", severity: doctor.Warning, resource: "quota project", fix: "gcloud auth application-default set-quota-project mill-test", manual: "it is this machine's setting"},
}

// Each defect, alone, is found and named, its fix is the right command, and once that is carried out there is nothing left to find. Where
// doctor --fix can do it, it does.
func TestDefects(t *testing.T) {
	t.Parallel()
	tried := &fixes{commands: map[string]bool{}}
	t.Cleanup(func() { tried.lint(t) }) // after the last of them
	for _, d := range defects {
		t.Run(strings.ReplaceAll(d.name, " ", "-"), func(t *testing.T) {
			t.Parallel()
			c := newCloud(t)
			cfg := c.config()
			d.spoil(c, &cfg)
			r := run(t, cfg)
			tried.add(t, r.Findings)
			f := d.find(t, r)
			if d.manual == "" {
				c.run(f.Fix.Command)
				wantHealthy(t, run(t, cfg))
			}
			if d.mends != (f.Mendable != "") {
				t.Errorf("doctor --fix would %q", f.Mendable)
			}
			if d.mends {
				d.mend(t)
			}
		})
	}
}

// find returns the one finding that there must be.
func (d *defect) find(t *testing.T, r *doctor.Report) doctor.Finding {
	t.Helper()
	all := serious(r)
	if len(all) != 1 {
		for _, f := range all {
			t.Errorf("found %s %s, %s: %s", f.Severity, f.ID, f.Resource, f.Problem)
		}
		t.Fatalf("%d findings, want one", len(all))
	}
	f := all[0]
	if f.ID != d.id || f.Severity != d.severity || f.Resource != d.resource {
		t.Fatalf("found %s %s, %s; want %s %s, %s", f.Severity, f.ID, f.Resource, d.severity, d.id, d.resource)
	}
	if !strings.HasPrefix(f.Fix.Command, d.fix) || !strings.Contains(f.Fix.Terraform, d.tf) {
		t.Errorf("fix %q, Terraform %q; want %q, %q", f.Fix.Command, f.Fix.Terraform, d.fix, d.tf)
	}
	if f.Fix.Command == "" && f.Fix.Note == "" {
		t.Error("there is no fix")
	}
	if !oneSentence.MatchString(f.Problem) {
		t.Errorf("this is no sentence: %q", f.Problem)
	}
	return f
}

// oneSentence begins with a capital or a name, and ends.
var oneSentence = regexp.MustCompile(`^[A-Za-z].*[.]$`)

// mend has the doctor put the defect right on a fresh cloud.
func (d *defect) mend(t *testing.T) {
	t.Helper()
	c := newCloud(t)
	cfg := c.config()
	d.spoil(c, &cfg)
	mendable := run(t, cfg).Mendable()
	done, err := doctor.Mend(t.Context(), mendable)
	if err != nil || len(done) != 1 || done[0].ID != d.id {
		t.Fatalf("mended %v of %v: %v", done, mendable, err)
	}
	r := run(t, cfg)
	wantHealthy(t, r)
	if len(r.Mendable()) > 0 {
		t.Errorf("still to be mended: %v", r.Mendable())
	}
}
