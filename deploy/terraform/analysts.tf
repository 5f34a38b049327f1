# What analysts see: views that are allowed to read the tables in their stead,
# and a table of the stored objects, which makes links to images.
locals {
  _analyst_entries = {
    for member in var.access.analysts : member => {
      group = (
        startswith(member, "group:") ? trimprefix(member, "group:") : null
      )
      user = (
        startswith(member, "user:") || startswith(member, "serviceAccount:")
        ? split(":", member)[1] : null
      )
      domain = (
        startswith(member, "domain:") ? trimprefix(member, "domain:") : null
      )
      iam = (
        length(regexall("^(group|user|serviceAccount|domain):", member)) == 0
        ? member : null
      )
    }
  }
}

resource "google_bigquery_dataset" "analysts" {
  project                    = var.project_id
  dataset_id                 = local.analysts_dataset_id
  location                   = var.region
  description                = "What analysts may ask: views over ${var.dataset_id}"
  delete_contents_on_destroy = false

  access {
    role          = "OWNER"
    special_group = "projectOwners"
  }

  dynamic "default_encryption_configuration" {
    for_each = var.cmek.enabled ? [""] : []
    content {
      kms_key_name = local.kms_keys[var.region]
    }
  }

  lifecycle {
    ignore_changes = [access]
  }

  depends_on = [
    google_kms_crypto_key_iam_member.this,
    google_project_service.this,
  ]
}

resource "google_bigquery_dataset_access" "analysts" {
  for_each       = local._analyst_entries
  project        = var.project_id
  dataset_id     = google_bigquery_dataset.analysts.dataset_id
  role           = "roles/bigquery.dataViewer"
  group_by_email = each.value.group
  user_by_email  = each.value.user
  domain         = each.value.domain
  iam_member     = each.value.iam
}

resource "google_bigquery_dataset_access" "authorized_views" {
  project    = var.project_id
  dataset_id = google_bigquery_dataset.lineage.dataset_id

  dataset {
    dataset {
      project_id = var.project_id
      dataset_id = google_bigquery_dataset.analysts.dataset_id
    }
    target_types = ["VIEWS"]
  }
}

# The connection's account reads the bucket; analysts need no right to it.
resource "google_bigquery_connection" "assets" {
  project       = var.project_id
  connection_id = "assetmill-assets"
  location      = var.region
  description   = "Reads the assets for the table asset_objects"
  cloud_resource {}
  depends_on = [google_project_service.this]
}

resource "google_storage_bucket_iam_member" "object_table" {
  bucket = google_storage_bucket.assets[var.region].name
  role   = "roles/storage.objectViewer"
  member = "serviceAccount:${google_bigquery_connection.assets.cloud_resource[0].service_account_id}"
}

resource "google_bigquery_table" "asset_objects" {
  project             = var.project_id
  dataset_id          = google_bigquery_dataset.analysts.dataset_id
  table_id            = "asset_objects"
  description         = "One row per stored object. EXTERNAL_OBJECT_TRANSFORM makes links of it that are valid for six hours"
  deletion_protection = false
  max_staleness       = "0-0 0 4:0:0"

  external_data_configuration {
    autodetect          = false
    connection_id       = google_bigquery_connection.assets.name
    metadata_cache_mode = "AUTOMATIC"
    object_metadata     = "SIMPLE"
    source_uris = [
      for class in keys(local.retention_classes) :
      "gs://${google_storage_bucket.assets[var.region].name}/${class}/*"
    ]
  }

  depends_on = [google_storage_bucket_iam_member.object_table]
}
