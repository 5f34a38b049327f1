package doctor

import (
	"fmt"
	"strings"
)

// Areas, in the order of the report.
const (
	areaSettings    = "Settings"
	areaCredentials = "Credentials"
	areaAPIs        = "APIs"
	areaPubSub      = "Pub/Sub"
	areaStorage     = "Cloud Storage"
	areaBigQuery    = "BigQuery"
	areaVertex      = "Vertex AI"
)

// anyArea stands for the area of the resource that a finding is about.
const anyArea = "any"

// Ids of checks. Scripts rely on them.
const (
	idEnvironment  = "settings.environment"
	idCatalogue    = "settings.catalogue"
	idLanesFile    = "settings.lanes"
	idADC          = "credentials.missing"
	idIdentity     = "credentials.identity"
	idQuotaProject = "credentials.quota-project"
	idClock        = "credentials.clock"
	idAPI          = "api.disabled"
	idPermission   = "permission.missing"
	idLimited      = "access.limited"
	idUnreachable  = "service.unreachable"
	idEmulator     = "emulator.limits"

	idTopicMissing = "topic.missing"
	idTopicSchema  = "topic.schema"
	idTopicRegion  = "topic.region"
	idSubMissing   = "subscription.missing"
	idSubTopic     = "subscription.topic"
	idSubFilter    = "subscription.filter"
	idSubPull      = "subscription.pull"
	idSubDeadline  = "subscription.ack-deadline"
	idSubRetry     = "subscription.retry"
	idSubExpires   = "subscription.expiration"
	idSubRetention = "subscription.retention"
	idSubOnce      = "subscription.exactly-once"
	idDeadPolicy   = "deadletter.policy"
	idDeadAttempts = "deadletter.attempts"
	idDeadGrants   = "deadletter.grants"

	idBucketMissing  = "bucket.missing"
	idBucketUniform  = "bucket.uniform-access"
	idBucketPublic   = "bucket.public-access"
	idSoftDelete     = "bucket.soft-delete"
	idLifecycle      = "bucket.lifecycle"
	idLifecycleKills = "bucket.lifecycle-deletes"
	idBucketLocation = "bucket.location"
	idAgent          = "agent.access"

	idDatasetMissing  = "dataset.missing"
	idDatasetLocation = "dataset.location"
	idTableMissing    = "table.missing"
	idTableColumns    = "table.columns"
	idTableLayout     = "table.layout"
	idTableExpires    = "table.expiration"
	idViewMissing     = "view.missing"
	idViewSQL         = "view.sql"

	idLaneDenied    = "lane.denied"
	idLaneModel     = "lane.model"
	idLaneUnchecked = "lane.unchecked"
	idQuota         = "quota.limit"
)

// Check describes one check.
type Check struct {
	ID    string
	Area  string
	Worst Severity // of its findings
	Finds string   // what it finds, and why that matters
	Fix   string   // what puts it right
	Mends bool     // whether Mend can do it
}

// Checks returns all checks in the order of their areas. Every finding has the id of one of them.
func Checks() []Check {
	return []Check{
		{idEnvironment, areaSettings, Error, "a required setting is not set", "`terraform output -raw environment_file`", false},
		{idCatalogue, areaSettings, Error, "the file that ASSETMILL_CATALOGUE names can't be read or parsed", "mend the file; the finding says where", false},
		{idLanesFile, areaSettings, Error, "the file that ASSETMILL_LANES names can't be read or parsed; no worker would start", "mend the file, or `terraform output -raw lanes_file`", false},

		{idADC, areaCredentials, Error, "there are no Application Default Credentials, or they give no token", "`gcloud auth application-default login`; in a pod, Workload Identity", false},
		{idIdentity, areaCredentials, Info, "whose permissions are checked: those of the account that runs the doctor, which need not be the worker's", "run it in the worker's pod, or impersonate the worker's account", false},
		{idQuotaProject, areaCredentials, Warning, "a person's credentials without a quota project: some APIs refuse them", "`gcloud auth application-default set-quota-project`", false},
		{idClock, areaCredentials, Warning, "this machine's clock is more than 60 s off Google's: tokens and signed links fail, and deadlines are taken wrongly", "synchronise the clock", false},

		{idAPI, areaAPIs, Error, "an API that is needed is not enabled", "`gcloud services enable`", false},
		{idPermission, anyArea, Error, "the account lacks a permission that its role (`--as`) needs on a resource, which testIamPermissions told", "grant the role on that resource", false},
		{idLimited, anyArea, Info, "the account may not look at something, so a check was not made", "run the doctor once as somebody who may", false},
		{idUnreachable, anyArea, Error, "a service does not answer, or answers with an error that says nothing about the deployment", "network, proxy, perimeter, or wait", false},
		{idEmulator, areaAPIs, Info, "what an emulator can't tell", "run the doctor against Google Cloud", false},

		{idTopicMissing, areaPubSub, Error, "a topic does not exist", "`gcloud pubsub topics create`", false},
		{idTopicSchema, areaPubSub, Error, "a topic's schema is not this version's, takes no JSON, is gone, or is where none may be: Pub/Sub refuses messages that it should take", "`gcloud pubsub schemas commit`, `gcloud pubsub topics update`", false},
		{idTopicRegion, areaPubSub, Warning, "all lanes are bound to regions, but messages, which hold prompts, may rest elsewhere", "`gcloud pubsub topics update --message-storage-policy-allowed-regions`", false},
		{idSubMissing, areaPubSub, Error, "a subscription does not exist: what its topic takes for it is lost", "`gcloud pubsub subscriptions create`", false},
		{idSubTopic, areaPubSub, Error, "a subscription belongs to another topic, or to one that was deleted", "delete it and create it", false},
		{idSubFilter, areaPubSub, Error, "a subscription has another filter: jobs are called twice as dear as was asked for, or by nobody. A filter can't be changed", "delete it and create it", false},
		{idSubPull, areaPubSub, Error, "a subscription is detached, or delivers by push or export: workers get nothing", "`gcloud pubsub subscriptions update`", false},
		{idSubDeadline, areaPubSub, Warning, "the ack deadline is below 20 s, the workers' own lease: what is being handled is delivered twice", "`gcloud pubsub subscriptions update --ack-deadline`", true},
		{idSubRetry, areaPubSub, Warning, "no retry policy: a message that is given back comes again at once, and again", "`gcloud pubsub subscriptions update --min-retry-delay`", true},
		{idSubExpires, areaPubSub, Warning, "the subscription is deleted when nobody reads it for a time", "`gcloud pubsub subscriptions update --expiration-period=never`", true},
		{idSubRetention, areaPubSub, Warning, "messages are kept for less than 7 days: a weekend and a pause, and jobs are lost", "`gcloud pubsub subscriptions update --message-retention-duration`", true},
		{idSubOnce, areaPubSub, Warning, "exactly-once delivery is on: it costs most of the throughput, and the ledger does not need it", "`gcloud pubsub subscriptions update --no-enable-exactly-once-delivery`", false},
		{idDeadPolicy, areaPubSub, Error, "no dead-letter policy, so a message that kills its workers is delivered for ever; or one to another topic", "`gcloud pubsub subscriptions update --dead-letter-topic`", false},
		{idDeadAttempts, areaPubSub, Warning, "fewer than 60 deliveries: jobs that only wait become dead letters, since workers publish them anew after 50", "`gcloud pubsub subscriptions update --max-delivery-attempts`", false},
		{idDeadGrants, areaPubSub, Error, "Pub/Sub's own account may not publish dead letters, or not take them off the subscription: they are never moved", "grant it publisher on the one, subscriber on the other", false},

		{idBucketMissing, areaStorage, Error, "a bucket does not exist", "`gcloud storage buckets create`", false},
		{idBucketUniform, areaStorage, Warning, "uniform bucket-level access is off: single objects can be shared, and rights on folders don't work", "`gcloud storage buckets update --uniform-bucket-level-access`", false},
		{idBucketPublic, areaStorage, Error, "everybody may read the bucket (error), or could be allowed to (warning)", "`gcloud storage buckets update --public-access-prevention`", false},
		{idSoftDelete, areaStorage, Warning, "soft delete is on for the work bucket: each sign of life and each version of the ledger is kept, and paid for", "`gcloud storage buckets update --clear-soft-delete`", false},
		{idLifecycle, areaStorage, Warning, "lifecycle rules are missing: retention classes are not kept, what is of no use stays and is paid for", "`gcloud storage buckets update --lifecycle-file`", true},
		{idLifecycleKills, areaStorage, Error, "a lifecycle rule deletes what must stay: images of a longer class, the ledger (jobs would be paid again), controls, receipts", "`gcloud storage buckets update --lifecycle-file`", false},
		{idBucketLocation, areaStorage, Error, "a bucket is not in the region that it is listed for; or a region of the lanes has no bucket, so that its jobs can't be stored", "a bucket in the region, listed in the file of lanes", false},
		{idAgent, areaStorage, Error, "Vertex AI's service agent may not read or write where it has to: inputs and outputs of batches, reference images, images that models write themselves", "grant it the role on the folder or bucket", false},

		{idDatasetMissing, areaBigQuery, Error, "the dataset does not exist", "`bq mk`", false},
		{idDatasetLocation, areaBigQuery, Warning, "the dataset is in another place than the images", "a dataset in the region of the bucket", false},
		{idTableMissing, areaBigQuery, Error, "a table does not exist: no job can end", "`bq mk`", false},
		{idTableColumns, areaBigQuery, Error, "a table's columns are not this version's: rows are refused. Columns that are only more, or laxer, are a note", "`bq update`, or a new table where a column can't be changed", false},
		{idTableLayout, areaBigQuery, Warning, "a table is partitioned or clustered otherwise: queries cost more, or fail", "`bq update --clustering_fields`, or a new table", false},
		{idTableExpires, areaBigQuery, Error, "a table expires, with all its rows; or new ones would (warning)", "`bq update --expiration=0`", false},
		{idViewMissing, areaBigQuery, Warning, "a view does not exist: commands and analysts can't ask", "`bq mk --view`", true},
		{idViewSQL, areaBigQuery, Warning, "a view's SQL is not this version's", "`bq update --view`", false},

		{idLaneDenied, areaVertex, Error, "Vertex AI denies the account a free call by a lane: paid ones would be denied too, and the lane shut", "grant the permission aiplatform.endpoints.predict", false},
		{idLaneModel, areaVertex, Error, "a lane's model does not exist at its location, for this project", "another location or model in the file of lanes", false},
		{idLaneUnchecked, areaVertex, Warning, "Vertex AI gave no clear answer for a lane; or the lane can't be asked for free (note)", "run the doctor again", false},
		{idQuota, areaVertex, Warning, "a quota for a lane's model is 0 (warning); what the limits are (note)", "ask for quota in the console", false},
	}
}

// Table returns all checks as a table in Markdown, for docs/doctor.md.
func Table() string {
	var b strings.Builder
	b.WriteString("| check | area | at worst | finds | fix |\n|---|---|---|---|---|\n")
	for _, c := range Checks() {
		fix := c.Fix
		if c.Mends {
			fix += "; `--fix`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", c.ID, c.Area, c.Worst, c.Finds, fix)
	}
	return b.String()
}
