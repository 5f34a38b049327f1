package doctor

import (
	"maps"
	"slices"

	"github.com/assetmill/assetmill/schemas"
)

// need is permissions that a role must have on a resource.
type need struct {
	on          place
	permissions []string
	role        string // the smallest predefined one that has them
	without     string // what happens otherwise
	terraform   string
	severity    Severity
}

// What grants in deploy/terraform.
const (
	tfTopicGrants   = "google_pubsub_topic_iam_member.this"
	tfSubGrants     = "google_pubsub_subscription_iam_member.this"
	tfAssetsGrants  = "google_storage_bucket_iam_member.assets"
	tfWorkGrants    = "google_storage_bucket_iam_member.work"
	tfRefGrants     = "google_storage_bucket_iam_member.references"
	tfStraight      = "google_storage_managed_folder_iam_member.straight"
	tfWorkFolders   = "google_storage_managed_folder_iam_member.work"
	tfProjectGrants = "google_project_iam_member.this"
	tfTableGrants   = "google_bigquery_table_iam_member.append"
	tfDatasetGrants = "google_bigquery_dataset_access.lineage"
	tfSign          = "google_service_account_iam_member.sign"
)

// Roles that are granted more than once.
const (
	publisher       = "roles/pubsub.publisher"
	subscriber      = "roles/pubsub.subscriber"
	objectUser      = "roles/storage.objectUser"
	objectViewer    = "roles/storage.objectViewer"
	objectCreator   = "roles/storage.objectCreator"
	bucketReader    = "roles/storage.legacyBucketReader"
	dataEditor      = "roles/bigquery.dataEditor"
	dataViewer      = "roles/bigquery.dataViewer"
	metadataViewer  = "roles/bigquery.metadataViewer"
	jobUser         = "roles/bigquery.jobUser"
	modelCaller     = "roles/aiplatform.user"
	tokenCreator    = "roles/iam.serviceAccountTokenCreator"
	straightFolder  = "straight/"
	batchesFolder   = "batches/"
	receiptsFolder  = "submissions/"
	controlsFolder  = "control/"
	objectsCreate   = "storage.objects.create"
	objectsGet      = "storage.objects.get"
	objectsList     = "storage.objects.list"
	objectsDelete   = "storage.objects.delete"
	topicsPublish   = "pubsub.topics.publish"
	subsConsume     = "pubsub.subscriptions.consume"
	tablesAppend    = "bigquery.tables.updateData"
	endpointsInvoke = "aiplatform.endpoints.predict"
)

func topicNeed(topic, without string, s Severity) need {
	return need{place{kind: onTopic, name: topic}, []string{topicsPublish}, publisher, without, tfTopicGrants, s}
}

func subNeed(subscription, without string, s Severity) need {
	return need{place{kind: onSubscription, name: subscription}, []string{subsConsume}, subscriber, without, tfSubGrants, s}
}

func appendNeed(table, without string, s Severity) need {
	return need{place{kind: onTable, name: table}, []string{tablesAppend}, dataEditor, without, tfTableGrants, s}
}

// needs returns what the role needs.
func (x *exam) needs() []need {
	switch x.cfg.Role {
	case Submitter:
		return x.submitterNeeds()
	case Console:
		return x.consoleNeeds()
	default:
		return slices.Concat(x.workerNeeds(), x.bucketNeeds(), x.modelNeeds())
	}
}

// forBatches is how grave it is when something for batches is missing: a worker without lanes of tier batch gathers none.
func (x *exam) forBatches() Severity {
	if x.cfg.Lanes != nil && len(x.cfg.Lanes.Batch) > 0 {
		return Error
	}
	return Info
}

func (x *exam) workerNeeds() []need {
	batches := x.forBatches()
	return []need{
		subNeed(schemas.SubscriptionOnline, "no worker gets a job", Error),
		subNeed(schemas.SubscriptionBatch, "no worker gathers batch jobs", batches),
		subNeed(schemas.SubscriptionBatches, "no batch is run", batches),
		topicNeed(schemas.TopicJobs, "rows of a batch that have to be called again can't be put back", batches),
		topicNeed(schemas.TopicDead, "messages that are no jobs come back for ever", Error),
		topicNeed(schemas.TopicResults, "no job ends, since its result can't be announced", Error),
		topicNeed(schemas.TopicBatches, "no batch is handed over", batches),
		appendNeed(schemas.TableGenerations, "no job ends, since its row can't be stored", Error),
		appendNeed(schemas.TableAttempts, "no job ends, since its calls can't be recorded", Error),
		appendNeed(schemas.TableBatches, "batches are not recorded", batches),
		{place{kind: onDataset, name: x.cfg.Dataset}, []string{"bigquery.tables.get"}, metadataViewer, "no worker starts, since it can't check the tables", tfDatasetGrants, Error},
	}
}

func (x *exam) bucketNeeds() []need {
	all := []need{{
		place{kind: onBucket, name: x.cfg.WorkBucket}, []string{objectsCreate, objectsDelete, objectsGet, objectsList}, objectUser,
		"no job can be claimed in the ledger", tfWorkGrants, Error,
	}}
	buckets := []string{x.cfg.Bucket}
	if x.cfg.Lanes != nil {
		for _, name := range slices.Sorted(maps.Values(x.cfg.Lanes.Buckets)) {
			buckets = append(buckets, name)
			all = append(all, need{place{kind: onBucket, name: name}, []string{"storage.buckets.get"}, bucketReader, "no worker starts, since it can't see where the bucket is", tfAssetsGrants, Error})
		}
	}
	slices.Sort(buckets)
	for _, name := range slices.Compact(buckets) {
		all = append(all,
			need{place{kind: onBucket, name: name}, []string{objectsCreate}, objectCreator, "no image can be stored", tfAssetsGrants, Error},
			need{place{kind: onBucket, name: name}, []string{objectsGet, objectsList}, objectViewer, "images whose answers were lost are not found and are paid for again", tfAssetsGrants, Error},
			need{place{kind: onFolder, name: name, folder: straightFolder}, []string{objectsDelete}, objectUser, "what models write themselves stays until a lifecycle rule deletes it", tfStraight, Warning})
	}
	return all
}

func (x *exam) modelNeeds() []need {
	online, batch := map[string]bool{}, map[string]bool{}
	if x.cfg.Lanes == nil {
		online[x.cfg.Project] = true
	} else {
		for _, l := range x.cfg.Lanes.Lanes {
			online[l.Project] = true
		}
		for _, l := range x.cfg.Lanes.Batch {
			batch[l.Project] = true
		}
	}
	if len(batch) == 0 {
		batch[x.cfg.Project] = true
	}
	var all []need
	for _, p := range slices.Sorted(maps.Keys(online)) {
		all = append(all, need{place{kind: onProject, project: p}, []string{endpointsInvoke}, modelCaller, "no model can be called", tfProjectGrants, Error})
	}
	for _, p := range slices.Sorted(maps.Keys(batch)) {
		all = append(all, need{place{kind: onProject, project: p}, []string{
			"aiplatform.batchPredictionJobs.cancel", "aiplatform.batchPredictionJobs.create", "aiplatform.batchPredictionJobs.get", "aiplatform.batchPredictionJobs.list",
		}, modelCaller, "no batch can be run", tfProjectGrants, x.forBatches()})
	}
	return all
}

// askerNeeds are those of roles that ask the lineage and steer submissions.
func (x *exam) askerNeeds(receipts []string, receiptsRole string) []need {
	work := x.cfg.WorkBucket
	return []need{
		topicNeed(schemas.TopicJobs, "no job can be published", Error),
		{place{kind: onBucket, name: work}, []string{objectsList}, bucketReader, "the command ends at its first check", tfWorkGrants, Error},
		{place{kind: onFolder, name: work, folder: receiptsFolder}, receipts, receiptsRole, "receipts can't be kept or read", tfWorkFolders, Error},
		{place{kind: onFolder, name: work, folder: controlsFolder}, []string{objectsCreate, objectsDelete, objectsGet}, objectUser, "submissions can't be paused or cancelled", tfWorkFolders, Error},
		{place{kind: onDataset, name: x.cfg.Dataset}, []string{"bigquery.tables.get", "bigquery.tables.getData"}, dataViewer, "what became of jobs can't be asked", tfDatasetGrants, Error},
		{place{kind: onProject, project: x.cfg.Project}, []string{"bigquery.jobs.create"}, jobUser, "no query can be run", tfProjectGrants, Error},
	}
}

func (x *exam) submitterNeeds() []need {
	all := append(x.askerNeeds([]string{objectsCreate, objectsDelete, objectsGet}, objectUser),
		appendNeed(schemas.TableSubmissions, "submissions have no receipt", Error))
	for _, name := range x.cfg.References {
		all = append(all, need{place{kind: onBucket, name: name}, []string{objectsGet}, objectViewer, "whether reference images are there is found out by paid workers", tfRefGrants, Warning})
	}
	return all
}

func (x *exam) consoleNeeds() []need {
	all := append(x.askerNeeds([]string{objectsGet}, objectViewer),
		subNeed(schemas.SubscriptionDead, "dead letters can't be looked at", Error),
		need{place{kind: onBucket, name: x.cfg.Bucket}, []string{objectsGet, objectsList}, objectViewer, "images can't be shown, and links to them don't work", tfAssetsGrants, Error})
	all = append(all, x.batchNeeds()...)
	if id := x.cfg.Identity; id.Email != "" && !id.Person {
		all = append(all, need{place{kind: onAccount, name: id.Email}, []string{"iam.serviceAccounts.signBlob"}, tokenCreator, "no link can be signed", tfSign, Error})
	}
	return all
}

// batchNeeds are those of whoever looks at batches, cancels and resumes them.
func (x *exam) batchNeeds() []need {
	folder, s := place{kind: onFolder, name: x.cfg.WorkBucket, folder: batchesFolder}, x.forBatches()
	return []need{
		topicNeed(schemas.TopicBatches, "a batch that stands still can't be resumed", s),
		{folder, []string{objectsGet}, objectViewer, "batches can't be looked at or resumed", tfWorkFolders, s},
		{folder, []string{objectsCreate}, objectCreator, "batches can't be cancelled", tfWorkFolders, s},
	}
}
