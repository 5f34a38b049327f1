package doctor_test

import (
	"encoding/json"
	"maps"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/api/bigquery/v2"

	"cloud.google.com/go/pubsub/v2/pstest"

	"github.com/assetmill/assetmill/schemas"
)

// The deployment of the tests, as deploy/terraform makes it.
const (
	projectID     = "mill-test"
	projectNumber = "123456789012"
	region        = "europe-west4"
	assetsBucket  = "mill-test-assets"
	extraBucket   = "mill-test-assets-us-central1"
	workBucket    = "mill-test-work"
	brandBucket   = "brand-assets"
	datasetID     = "assetmill"

	workerAccount    = "assetmill-worker@mill-test.iam.gserviceaccount.com"
	submitterAccount = "assetmill-submitter@mill-test.iam.gserviceaccount.com"
	consoleAccount   = "assetmill-console@mill-test.iam.gserviceaccount.com"

	pubsubAgent = "serviceAccount:service-" + projectNumber + "@gcp-sa-pubsub.iam.gserviceaccount.com"
	vertexAgent = "serviceAccount:service-" + projectNumber + "@gcp-sa-aiplatform.iam.gserviceaccount.com"
)

// cloud is a Google Cloud with one project. Its state may be changed between two runs of the doctor.
type cloud struct {
	t  *testing.T
	mu sync.Mutex

	caller  string                                    // member who asks
	grants  map[string]map[string]map[string]struct{} // resource, role, member
	apis    map[string]bool                           // enabled, by name
	buckets map[string]map[string]any                 // as JSON, so that nothing unknown is lost
	folders map[string]bool                           // managed ones, bucket/folder/
	dataset *bigquery.Dataset                         // nil: none
	tables  map[string]*bigquery.Table                // and views
	quota   []any                                     // of serviceusage
	models  map[string]bool                           // location/model
	skew    time.Duration                             // of the servers' clocks
	files   map[string]string                         // that commands have written

	rest   *httptest.Server
	pubsub *pstest.Server
}

// roles are what roles permit, as far as the doctor looks.
var roles = map[string][]string{
	"roles/aiplatform.user": {
		"aiplatform.batchPredictionJobs.cancel", "aiplatform.batchPredictionJobs.create", "aiplatform.batchPredictionJobs.get",
		"aiplatform.batchPredictionJobs.list", "aiplatform.endpoints.predict",
	},
	"projects/mill-test/roles/assetmillModelCaller": {
		"aiplatform.batchPredictionJobs.cancel", "aiplatform.batchPredictionJobs.create", "aiplatform.batchPredictionJobs.get",
		"aiplatform.batchPredictionJobs.list", "aiplatform.endpoints.predict",
	},
	"projects/mill-test/roles/assetmillRowAppender": {"bigquery.tables.get", "bigquery.tables.updateData"},
	"roles/bigquery.dataEditor":                     {"bigquery.tables.get", "bigquery.tables.getData", "bigquery.tables.updateData"},
	"roles/bigquery.dataViewer":                     {"bigquery.datasets.get", "bigquery.tables.get", "bigquery.tables.getData"},
	"roles/bigquery.jobUser":                        {"bigquery.jobs.create"},
	"roles/bigquery.metadataViewer":                 {"bigquery.datasets.get", "bigquery.tables.get"},
	"roles/iam.securityReviewer": {
		"pubsub.subscriptions.getIamPolicy", "pubsub.topics.getIamPolicy", "resourcemanager.projects.getIamPolicy", "storage.buckets.getIamPolicy",
		"storage.managedFolders.getIamPolicy",
	},
	"roles/iam.serviceAccountTokenCreator":    {"iam.serviceAccounts.signBlob"},
	"roles/browser":                           {"resourcemanager.projects.get"},
	"roles/pubsub.publisher":                  {"pubsub.topics.publish"},
	"roles/pubsub.subscriber":                 {"pubsub.subscriptions.consume"},
	"roles/pubsub.viewer":                     {"pubsub.schemas.get", "pubsub.subscriptions.get", "pubsub.topics.get"},
	"roles/serviceusage.serviceUsageViewer":   {"serviceusage.quotas.get", "serviceusage.services.get"},
	"roles/storage.legacyBucketReader":        {"storage.buckets.get", "storage.objects.list"},
	"roles/storage.objectCreator":             {"storage.managedFolders.create", "storage.objects.create"},
	"roles/storage.objectUser":                {"storage.managedFolders.get", "storage.objects.create", "storage.objects.delete", "storage.objects.get", "storage.objects.list"},
	"roles/storage.objectViewer":              {"storage.managedFolders.get", "storage.objects.get", "storage.objects.list"},
	"roles/cloudtrace.agent":                  {},
	"roles/monitoring.metricWriter":           {},
	"roles/monitoring.viewer":                 {},
	"projects/mill-test/roles/onlyCalls":      {"aiplatform.endpoints.predict"},
	"roles/storage.admin":                     {"storage.buckets.get", "storage.buckets.getIamPolicy"},
	"roles/serviceusage.serviceUsageConsumer": {"serviceusage.services.use"},
}

// terraformGrants are the grants that deploy/terraform makes; tests/access.tftest.hcl there holds it to the same.
var terraformGrants = map[string][]string{
	"serviceAccount:" + workerAccount: {
		"projects/mill-test/roles/assetmillModelCaller on project",
		"projects/mill-test/roles/assetmillRowAppender on table attempts_raw",
		"projects/mill-test/roles/assetmillRowAppender on table batches_raw",
		"projects/mill-test/roles/assetmillRowAppender on table generations_raw",
		"roles/bigquery.metadataViewer on dataset assetmill",
		"roles/cloudtrace.agent on project",
		"roles/monitoring.metricWriter on project",
		"roles/pubsub.publisher on topic batches",
		"roles/pubsub.publisher on topic jobs",
		"roles/pubsub.publisher on topic jobs-dead",
		"roles/pubsub.publisher on topic results",
		"roles/pubsub.subscriber on subscription batches",
		"roles/pubsub.subscriber on subscription jobs-batch",
		"roles/pubsub.subscriber on subscription jobs-online",
		"roles/pubsub.viewer on subscription batches",
		"roles/pubsub.viewer on subscription jobs-batch",
		"roles/pubsub.viewer on subscription jobs-online",
		"roles/pubsub.viewer on topic batches",
		"roles/pubsub.viewer on topic jobs",
		"roles/pubsub.viewer on topic jobs-dead",
		"roles/pubsub.viewer on topic results",
		"roles/storage.legacyBucketReader on bucket mill-test-assets",
		"roles/storage.legacyBucketReader on bucket mill-test-assets-us-central1",
		"roles/storage.legacyBucketReader on bucket mill-test-work",
		"roles/storage.objectCreator on bucket mill-test-assets",
		"roles/storage.objectCreator on bucket mill-test-assets-us-central1",
		"roles/storage.objectUser on bucket mill-test-work",
		"roles/storage.objectUser on folder mill-test-assets/straight/",
		"roles/storage.objectUser on folder mill-test-assets-us-central1/straight/",
		"roles/storage.objectViewer on bucket brand-assets",
		"roles/storage.objectViewer on bucket mill-test-assets",
		"roles/storage.objectViewer on bucket mill-test-assets-us-central1",
	},
	"serviceAccount:" + submitterAccount: {
		"projects/mill-test/roles/assetmillRowAppender on table submissions_raw",
		"roles/bigquery.dataViewer on dataset assetmill",
		"roles/bigquery.jobUser on project",
		"roles/pubsub.publisher on topic jobs",
		"roles/pubsub.viewer on topic jobs",
		"roles/storage.legacyBucketReader on bucket mill-test-work",
		"roles/storage.objectUser on folder mill-test-work/control/",
		"roles/storage.objectUser on folder mill-test-work/submissions/",
		"roles/storage.objectViewer on bucket brand-assets",
	},
	"serviceAccount:" + consoleAccount: {
		"roles/bigquery.dataViewer on dataset assetmill",
		"roles/bigquery.jobUser on project",
		"roles/iam.serviceAccountTokenCreator on account " + consoleAccount,
		"roles/monitoring.viewer on project",
		"roles/pubsub.publisher on topic batches",
		"roles/pubsub.publisher on topic jobs",
		"roles/pubsub.subscriber on subscription jobs-dead-review",
		"roles/pubsub.viewer on subscription jobs-dead-review",
		"roles/storage.legacyBucketReader on bucket mill-test-work",
		"roles/storage.objectCreator on folder mill-test-work/batches/",
		"roles/storage.objectUser on folder mill-test-work/control/",
		"roles/storage.objectViewer on bucket mill-test-assets",
		"roles/storage.objectViewer on bucket mill-test-assets-us-central1",
		"roles/storage.objectViewer on folder mill-test-work/batches/",
		"roles/storage.objectViewer on folder mill-test-work/submissions/",
	},
	pubsubAgent: {
		"roles/pubsub.publisher on topic jobs-dead",
		"roles/pubsub.subscriber on subscription batches",
		"roles/pubsub.subscriber on subscription jobs-batch",
		"roles/pubsub.subscriber on subscription jobs-online",
	},
	vertexAgent: {
		"roles/storage.legacyBucketReader on bucket mill-test-assets",
		"roles/storage.legacyBucketReader on bucket mill-test-assets-us-central1",
		"roles/storage.legacyBucketReader on bucket mill-test-work",
		"roles/storage.objectUser on folder mill-test-assets/straight/",
		"roles/storage.objectUser on folder mill-test-assets-us-central1/straight/",
		"roles/storage.objectUser on folder mill-test-work/batches/",
		"roles/storage.objectViewer on bucket brand-assets",
	},
}

// auditorGrants let an account see what the worker's own may not.
var auditorGrants = []string{
	"roles/browser on project", "roles/iam.securityReviewer on project", "roles/pubsub.viewer on project", "roles/serviceusage.serviceUsageViewer on project",
}

// newCloud starts a cloud in which everything is as Terraform makes it. The caller is the worker, with the right to look at everything.
func newCloud(t *testing.T) *cloud {
	t.Helper()
	c := &cloud{
		t: t, caller: "serviceAccount:" + workerAccount,
		grants: map[string]map[string]map[string]struct{}{}, apis: map[string]bool{}, buckets: map[string]map[string]any{},
		folders: map[string]bool{}, tables: map[string]*bigquery.Table{}, models: map[string]bool{}, files: map[string]string{},
	}
	for member, grants := range terraformGrants {
		for _, g := range grants {
			c.grant(member, g)
		}
	}
	for _, g := range auditorGrants {
		c.grant(c.caller, g)
	}
	for _, api := range []string{"aiplatform", "bigquery", "bigquerystorage", "cloudresourcemanager", "iam", "iamcredentials", "pubsub", "serviceusage", "storage"} {
		c.apis[api+".googleapis.com"] = true
	}
	for _, at := range []string{"global/gemini-3-pro-image", "global/gemini-2.5-flash-image", "europe-west4/gemini-2.5-flash-image", "us-central1/gemini-2.5-flash-image"} {
		c.models[at] = true
	}
	c.makeBuckets()
	c.makeTables()
	c.startREST()
	c.startPubSub()
	return c
}

// grant gives a role, written as "role on resource".
func (c *cloud) grant(member, grant string) {
	role, resource, _ := strings.Cut(grant, " on ")
	if _, known := roles[role]; !known {
		c.t.Fatalf("the test knows no %s", role)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.grants[resource] == nil {
		c.grants[resource] = map[string]map[string]struct{}{}
	}
	if c.grants[resource][role] == nil {
		c.grants[resource][role] = map[string]struct{}{}
	}
	c.grants[resource][role][member] = struct{}{}
}

// revoke takes a role away, which must be there.
func (c *cloud) revoke(member, grant string) {
	role, resource, _ := strings.Cut(grant, " on ")
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, there := c.grants[resource][role][member]; !there {
		c.t.Fatalf("%s has no %s", member, grant)
	}
	delete(c.grants[resource][role], member)
}

// above returns a resource and what it inherits grants from.
func above(resource string) []string {
	kind, name, _ := strings.Cut(resource, " ")
	switch kind {
	case "project":
		return []string{"project"}
	case "folder":
		bucket, _, _ := strings.Cut(name, "/")
		return []string{resource, "bucket " + bucket, "project"}
	case "table":
		return []string{resource, "dataset " + datasetID, "project"}
	default:
		return []string{resource, "project"}
	}
}

// may reports whether the caller has a permission on a resource.
func (c *cloud) may(permission, resource string) bool {
	for _, r := range above(resource) {
		for role, members := range c.grants[r] {
			if _, has := members[c.caller]; has && slices.Contains(roles[role], permission) {
				return true
			}
		}
	}
	return false
}

// permitted returns which permissions the caller has.
func (c *cloud) permitted(permissions []string, resource string) []string {
	return slices.DeleteFunc(slices.Clone(permissions), func(p string) bool { return !c.may(p, resource) })
}

// bindings is a resource's own policy.
func (c *cloud) bindings(resource string) []map[string]any {
	all := []map[string]any{}
	for _, role := range slices.Sorted(maps.Keys(c.grants[resource])) {
		if members := slices.Sorted(maps.Keys(c.grants[resource][role])); len(members) > 0 {
			all = append(all, map[string]any{"role": role, "members": members})
		}
	}
	return all
}

func parseJSON(t *testing.T, text string) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

const secure = `"iamConfiguration":{"uniformBucketLevelAccess":{"enabled":true},"publicAccessPrevention":"enforced"}`

const assetRules = `"lifecycle":{"rule":[
	{"action":{"type":"Delete"},"condition":{"age":30,"matchesPrefix":["30d/"]}},
	{"action":{"type":"Delete"},"condition":{"age":90,"matchesPrefix":["90d/"]}},
	{"action":{"type":"Delete"},"condition":{"age":365,"matchesPrefix":["365d/"]}},
	{"action":{"type":"SetStorageClass","storageClass":"ARCHIVE"},"condition":{"age":30,"matchesPrefix":["archive/"]}},
	{"action":{"type":"Delete"},"condition":{"age":3,"matchesPrefix":["straight/"]}},
	{"action":{"type":"AbortIncompleteMultipartUpload"},"condition":{"age":1}}]}`

const workRules = `"lifecycle":{"rule":[
	{"action":{"type":"Delete"},"condition":{"age":180,"matchesPrefix":["batches/"]}},
	{"action":{"type":"Delete"},"condition":{"age":30,"matchesPrefix":["batches/"],"matchesSuffix":[".jsonl"]}},
	{"action":{"type":"Delete"},"condition":{"age":1,"matchesPrefix":["workers/"]}},
	{"action":{"type":"AbortIncompleteMultipartUpload"},"condition":{"age":1}}]}`

func (c *cloud) makeBuckets() {
	number := `"projectNumber":"` + projectNumber + `","metageneration":"3",`
	week := `,"softDeletePolicy":{"retentionDurationSeconds":"604800"}`
	c.buckets[assetsBucket] = parseJSON(c.t, `{"name":"`+assetsBucket+`","location":"EUROPE-WEST4",`+number+secure+week+","+assetRules+"}")
	c.buckets[extraBucket] = parseJSON(c.t, `{"name":"`+extraBucket+`","location":"US-CENTRAL1",`+number+secure+week+","+assetRules+"}")
	c.buckets[workBucket] = parseJSON(c.t, `{"name":"`+workBucket+`","location":"EUROPE-WEST4",`+number+secure+`,"softDeletePolicy":{"retentionDurationSeconds":"0"},`+workRules+"}")
	c.buckets[brandBucket] = parseJSON(c.t, `{"name":"`+brandBucket+`","location":"EU","projectNumber":"999"}`)
	for _, folder := range []string{
		assetsBucket + "/straight/", extraBucket + "/straight/", workBucket + "/batches/", workBucket + "/control/", workBucket + "/submissions/",
	} {
		c.folders[folder] = true
	}
}

func (c *cloud) makeTables() {
	c.dataset = &bigquery.Dataset{Location: region, DatasetReference: &bigquery.DatasetReference{ProjectId: projectID, DatasetId: datasetID}}
	for _, t := range schemas.Tables() {
		var fields []*bigquery.TableFieldSchema
		if err := json.Unmarshal(t.Schema, &fields); err != nil {
			c.t.Fatal(err)
		}
		c.tables[t.Name] = &bigquery.Table{
			Type: "TABLE", Schema: &bigquery.TableSchema{Fields: fields}, Clustering: &bigquery.Clustering{Fields: t.ClusterBy},
			TimePartitioning: &bigquery.TimePartitioning{Type: "DAY", Field: t.PartitionBy},
		}
	}
	for _, v := range schemas.Views(projectID, datasetID) {
		c.tables[v.Name] = &bigquery.Table{Type: "VIEW", View: &bigquery.ViewDefinition{Query: v.SQL + "\n"}}
	}
}
