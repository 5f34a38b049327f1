output "alert_channels" {
  description = "Ids of the notification channels, for alerts that are made elsewhere."
  value = {
    for name, channel in google_monitoring_notification_channel.this :
    name => channel.id
  }
}

output "alerts" {
  description = "Alerts on the workers' metrics by name: title, query, runbook page, channels. Those on queues come on top."
  value       = module.monitoring.alerts
}

output "analysts_dataset" {
  description = "Dataset that analysts ask."
  value       = google_bigquery_dataset.analysts.dataset_id
}

output "assets_buckets" {
  description = "Buckets of the images, by region."
  value = {
    for region, b in google_storage_bucket.assets : region => b.name
  }
}

output "dashboard" {
  description = "Id of the dashboard in Cloud Monitoring."
  value       = module.monitoring.dashboard
}

output "environment" {
  description = "Environment of assetmill, for whoever runs it."
  value       = local.environment
}

output "environment_file" {
  description = "The same as lines NAME=value, for kustomize: `terraform output -raw environment_file`."
  value = join("", [
    for name, value in local.environment : "${name}=${value}\n"
  ])
}

output "grants" {
  description = "Every role that this deployment grants, by whom it is granted to."
  value       = local.grants
}

output "images" {
  description = "Registries to push to and, for images of ghcr.io, to pull from."
  value = {
    mirror = one([
      for r in google_artifact_registry_repository.mirror :
      "${local._registry_host}/${var.project_id}/${r.repository_id}"
    ])
    repository = join("/", [
      local._registry_host, var.project_id,
      google_artifact_registry_repository.images.repository_id,
    ])
  }
}

output "kubernetes" {
  description = "What deploy/kubernetes needs: the cluster, and per workload its namespace, its service account and the account that it acts as."
  value = {
    cluster = one(google_container_cluster.this[*].name)
    credentials = one([
      for c in google_container_cluster.this :
      join(" ", [
        "gcloud container clusters get-credentials", c.name, "--dns-endpoint",
        "--location=${c.location}", "--project=${var.project_id}",
      ])
    ])
    namespace = var.cluster.namespace
    workloads = {
      for name, w in local.workloads : name => {
        annotations = {
          "iam.gke.io/gcp-service-account" = trimprefix(
            local.members[name], "serviceAccount:"
          )
        }
        namespace       = w.namespace
        service_account = w.service_account
      }
    }
  }
}

output "lanes_file" {
  description = "The worker's file of lanes, which keeps calls where the residency allows them: `terraform output -raw lanes_file`."
  value       = jsonencode(local.lanes)
}

output "service_accounts" {
  description = "E-mail addresses of the service accounts, by role."
  value = {
    for name, member in local.members :
    name => trimprefix(member, "serviceAccount:")
  }
}

output "subscriptions" {
  description = "Subscriptions by topic."
  value = {
    for topic in keys(local._topics) : topic => sort([
      for name, s in google_pubsub_subscription.this : name
      if local.subscriptions[name].topic == topic
    ])
  }
}

output "work_bucket" {
  description = "Bucket of the ledger, receipts, controls and batches."
  value       = google_storage_bucket.work.name
}

locals {
  _registry_host = "${var.region}-docker.pkg.dev"

  environment = {
    ASSETMILL_BUCKET      = google_storage_bucket.assets[var.region].name
    ASSETMILL_DATASET     = google_bigquery_dataset.lineage.dataset_id
    ASSETMILL_PROJECT     = var.project_id
    ASSETMILL_WORK_BUCKET = google_storage_bucket.work.name
  }
}
