locals {
  _apis = {
    accesscontextmanager = var.perimeter != null
    aiplatform           = true
    artifactregistry     = true
    bigquery             = true
    bigqueryconnection   = true
    bigquerystorage      = true
    billingbudgets       = var.budget != null
    cloudkms             = var.cmek.enabled
    cloudresourcemanager = true
    cloudtrace           = true
    compute              = var.cluster.create
    container            = var.cluster.create
    dns                  = var.restricted_vip
    iam                  = true
    iamcredentials       = true
    logging              = true
    monitoring           = true
    orgpolicy            = var.org_policies
    pubsub               = true
    serviceusage         = true
    storage              = true
  }

  project_number = data.google_project.this.number

  # Google's own accounts, which act for the project inside its services.
  agents = {
    for name, user in {
      artifactregistry = "service-${local.project_number}@gcp-sa-artifactregistry"
      bigquery         = "bq-${local.project_number}@bigquery-encryption"
      container        = "service-${local.project_number}@container-engine-robot"
      pubsub           = "service-${local.project_number}@gcp-sa-pubsub"
      storage          = "service-${local.project_number}@gs-project-accounts"
      vertex           = "service-${local.project_number}@gcp-sa-aiplatform"
    } : name => "serviceAccount:${user}.iam.gserviceaccount.com"
  }

  # Everything in this deployment that is lost for good when it is deleted.
  deletion_policy = var.protect ? "PREVENT" : "DELETE"
}

data "google_project" "this" {
  project_id = var.project_id
}

resource "google_project_service" "this" {
  for_each           = toset([for name, on in local._apis : name if on])
  project            = var.project_id
  service            = "${each.key}.googleapis.com"
  disable_on_destroy = false
}

# Asking for these two agents creates them. The others are made by
# `gcloud beta services identity create`: see README.md.
data "google_storage_project_service_account" "this" {
  project    = var.project_id
  depends_on = [google_project_service.this]
}

data "google_bigquery_default_service_account" "this" {
  count      = var.cmek.enabled ? 1 : 0
  project    = var.project_id
  depends_on = [google_project_service.this]
}
