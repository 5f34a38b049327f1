# Least privilege: the roles of each account, one by one. A change here is a
# change of what an account may do: say why in the commit.
mock_provider "google" {
  source = "./tests/mocks"
}

variables {
  project_id = "mill-test"
  region     = "europe-west4"
}

run "roles" {
  command = plan

  assert {
    condition = output.grants.worker == tolist([
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
      "roles/storage.legacyBucketReader on bucket mill-test-work",
      "roles/storage.objectCreator on bucket mill-test-assets",
      "roles/storage.objectUser on bucket mill-test-work",
      "roles/storage.objectUser on folder mill-test-assets/straight/",
      "roles/storage.objectViewer on bucket mill-test-assets",
    ])
    error_message = "the worker's roles are ${join(", ", output.grants.worker)}"
  }
  assert {
    condition = google_project_iam_custom_role.this["model_caller"].permissions == toset([
      "aiplatform.batchPredictionJobs.cancel",
      "aiplatform.batchPredictionJobs.create",
      "aiplatform.batchPredictionJobs.get",
      "aiplatform.batchPredictionJobs.list",
      "aiplatform.endpoints.predict",
    ])
    error_message = "the role model_caller allows something else"
  }
  assert {
    condition = google_project_iam_custom_role.this["row_appender"].permissions == toset([
      "bigquery.tables.get",
      "bigquery.tables.updateData",
    ])
    error_message = "the role row_appender allows something else"
  }
  assert {
    condition = output.grants.submitter == tolist([
      "projects/mill-test/roles/assetmillRowAppender on table submissions_raw",
      "roles/bigquery.dataViewer on dataset assetmill",
      "roles/bigquery.jobUser on project",
      "roles/pubsub.publisher on topic jobs",
      "roles/pubsub.viewer on topic jobs",
      "roles/storage.legacyBucketReader on bucket mill-test-work",
      "roles/storage.objectUser on folder mill-test-work/control/",
      "roles/storage.objectUser on folder mill-test-work/submissions/",
    ])
    error_message = "the submitter's roles are ${join(", ", output.grants.submitter)}"
  }
  assert {
    condition = output.grants.console == tolist([
      "roles/bigquery.dataViewer on dataset assetmill",
      "roles/bigquery.jobUser on project",
      "roles/iam.serviceAccountTokenCreator on account console",
      "roles/monitoring.viewer on project",
      "roles/pubsub.publisher on topic batches",
      "roles/pubsub.publisher on topic jobs",
      "roles/pubsub.subscriber on subscription jobs-dead-review",
      "roles/pubsub.viewer on subscription jobs-dead-review",
      "roles/storage.legacyBucketReader on bucket mill-test-work",
      "roles/storage.objectCreator on folder mill-test-work/batches/",
      "roles/storage.objectUser on folder mill-test-work/control/",
      "roles/storage.objectViewer on bucket mill-test-assets",
      "roles/storage.objectViewer on folder mill-test-work/batches/",
      "roles/storage.objectViewer on folder mill-test-work/submissions/",
    ])
    error_message = "the console's roles are ${join(", ", output.grants.console)}"
  }
  assert {
    condition = output.grants.nodes == tolist([
      "roles/artifactregistry.reader on registry assetmill",
      "roles/artifactregistry.reader on registry assetmill-mirror",
      "roles/container.defaultNodeServiceAccount on project",
    ])
    error_message = "the nodes' roles are ${join(", ", output.grants.nodes)}"
  }
  assert {
    condition     = output.grants.scaler == tolist(["roles/monitoring.viewer on project"])
    error_message = "the scaler's roles are ${join(", ", output.grants.scaler)}"
  }
  assert {
    condition = output.grants["agent pubsub"] == tolist([
      "roles/pubsub.publisher on topic jobs-dead",
      "roles/pubsub.subscriber on subscription jobs-batch",
      "roles/pubsub.subscriber on subscription jobs-online",
    ])
    error_message = "Pub/Sub can't bury dead letters, or can do more"
  }
  assert {
    condition = output.grants["agent vertex"] == tolist([
      "roles/storage.legacyBucketReader on bucket mill-test-assets",
      "roles/storage.legacyBucketReader on bucket mill-test-work",
      "roles/storage.objectUser on folder mill-test-assets/straight/",
      "roles/storage.objectUser on folder mill-test-work/batches/",
    ])
    error_message = "Vertex can't read and write batches, or can do more"
  }
  assert {
    condition = output.grants["connection assetmill-assets"] == tolist([
      "roles/storage.objectViewer on bucket mill-test-assets",
    ])
    error_message = "the table of objects can't see the objects, or can do more"
  }
  assert {
    condition = toset(keys(output.grants)) == toset([
      "agent pubsub", "agent vertex", "connection assetmill-assets",
      "console", "nodes", "scaler",
      "serviceAccount:mill-test.svc.id.goog[assetmill/console]",
      "serviceAccount:mill-test.svc.id.goog[assetmill/submitter]",
      "serviceAccount:mill-test.svc.id.goog[assetmill/worker]",
      "serviceAccount:mill-test.svc.id.goog[keda/keda-operator]",
      "submitter", "views of assetmill_analysts", "worker",
    ])
    error_message = "grants are held by ${join(", ", keys(output.grants))}"
  }
  assert {
    condition = length([
      for grant in flatten(values(output.grants)) : grant
      if length(regexall(
        "^roles/(owner|editor|viewer|[a-z]+[.]admin) ", grant
      )) > 0
    ]) == 0
    error_message = "somebody has a basic role or an admin role"
  }
}

run "people" {
  command = plan

  variables {
    reference_buckets = ["brand-assets"]
    access = {
      analysts  = ["group:analysts@example.com", "user:ann@example.com"]
      consumers = ["serviceAccount:shop@example.iam.gserviceaccount.com"]
      deployers = ["principalSet://iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/ci/*"]
      operators = ["group:ops@example.com"]
      producers = ["serviceAccount:pim@example.iam.gserviceaccount.com"]
    }
  }

  assert {
    condition = output.grants["group:analysts@example.com"] == tolist([
      "roles/bigquery.dataViewer on dataset assetmill_analysts",
      "roles/bigquery.jobUser on project",
    ])
    error_message = "analysts see more than their views"
  }
  assert {
    condition = (
      google_bigquery_dataset_access.analysts["group:analysts@example.com"].group_by_email == "analysts@example.com"
      && google_bigquery_dataset_access.analysts["user:ann@example.com"].user_by_email == "ann@example.com"
    )
    error_message = "analysts are not written as BigQuery wants them"
  }
  assert {
    condition = output.grants["serviceAccount:shop@example.iam.gserviceaccount.com"] == tolist([
      "roles/pubsub.subscriber on topic results",
    ])
    error_message = "consumers may do more than subscribe to results"
  }
  assert {
    condition = output.grants["principalSet://iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/ci/*"] == tolist([
      "roles/artifactregistry.writer on registry assetmill",
    ])
    error_message = "deployers may do more than push images"
  }
  assert {
    condition = output.grants["group:ops@example.com"] == tolist([
      "roles/iam.serviceAccountTokenCreator on account console",
      "roles/iam.serviceAccountTokenCreator on account submitter",
    ])
    error_message = "operators may do more than act as submitter and console"
  }
  assert {
    condition = output.grants["serviceAccount:pim@example.iam.gserviceaccount.com"] == tolist([
      "roles/pubsub.publisher on topic jobs",
    ])
    error_message = "producers may do more than publish jobs"
  }
  assert {
    condition = [
      for name, grants in output.grants : name
      if contains(grants, "roles/storage.objectViewer on bucket brand-assets")
    ] == ["agent vertex", "submitter", "worker"]
    error_message = "references are not readable by exactly those who need them"
  }
}

run "everybody" {
  command = plan

  variables {
    access = { producers = ["allUsers"] }
  }

  expect_failures = [var.access]
}

run "everybody_with_an_account" {
  command = plan

  variables {
    access = { analysts = ["allAuthenticatedUsers"] }
  }

  expect_failures = [var.access]
}

# No account has a key: pods and people get tokens.
run "workload_identity" {
  command = plan

  variables {
    cluster = { namespace = "mill" }
  }

  assert {
    condition = {
      for name, g in google_service_account_iam_member.workload :
      name => "${g.role} ${g.member}"
      } == {
      console   = "roles/iam.workloadIdentityUser serviceAccount:mill-test.svc.id.goog[mill/console]"
      scaler    = "roles/iam.workloadIdentityUser serviceAccount:mill-test.svc.id.goog[keda/keda-operator]"
      submitter = "roles/iam.workloadIdentityUser serviceAccount:mill-test.svc.id.goog[mill/submitter]"
      worker    = "roles/iam.workloadIdentityUser serviceAccount:mill-test.svc.id.goog[mill/worker]"
    }
    error_message = "pods don't act as their accounts"
  }
  assert {
    condition = output.kubernetes.workloads.worker == {
      annotations = {
        "iam.gke.io/gcp-service-account" = "assetmill-worker@mill-test.iam.gserviceaccount.com"
      }
      namespace       = "mill"
      service_account = "worker"
    }
    error_message = "the worker's Kubernetes account is annotated wrongly"
  }
}

run "without_a_cluster" {
  command = plan

  variables {
    cluster = { create = false }
  }

  assert {
    condition = (
      length(google_service_account_iam_member.workload) == 0
      && toset(keys(google_service_account.this)) == toset([
        "console", "submitter", "worker",
      ])
    )
    error_message = "accounts of a cluster are made without a cluster"
  }
}

run "with_a_cluster_of_your_own" {
  command = plan

  variables {
    cluster = { create = false, workload_pool = "platform.svc.id.goog" }
  }

  assert {
    condition = (
      length(google_container_cluster.this) == 0
      && google_service_account_iam_member.workload["worker"].member == "serviceAccount:platform.svc.id.goog[assetmill/worker]"
    )
    error_message = "an existing cluster's pods don't act as the accounts"
  }
}
