# Lineage: tables and views come from schemas/, as the worker knows them.
locals {
  _schemas_path = "${path.module}/../../schemas"
  tables = {
    for t in jsondecode(file("${local._schemas_path}/bigquery/tables.json")) :
    t.name => t
  }

  # Whoever appends needs no more than that, table by table.
  _row_appenders = {
    for table in keys(local.tables) : table => (
      table == "submissions_raw" ? "submitter" : "worker"
    )
  }

  _dataset_roles = {
    "roles/bigquery.dataViewer" = [
      "console",
      "submitter",
    ]
    # The worker checks columns at its start, and reads no row.
    "roles/bigquery.metadataViewer" = ["worker"]
  }
  _dataset_grants = flatten([
    for role, accounts in local._dataset_roles : [
      for account in accounts : { role = role, account = account }
    ]
  ])
}

resource "google_bigquery_dataset" "lineage" {
  project                    = var.project_id
  dataset_id                 = var.dataset_id
  location                   = var.region
  description                = "What became of every job: tables, and one view per question"
  delete_contents_on_destroy = false
  deletion_policy            = local.deletion_policy

  # By default everybody who may view the project reads every prompt. All
  # other grants are resources of their own, hence the lifecycle below.
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

# IAM members of a dataset would wipe out the authorization of the analysts'
# views: everything on this dataset is an access entry.
resource "google_bigquery_dataset_access" "lineage" {
  for_each = {
    for grant in local._dataset_grants :
    "${grant.role} ${grant.account}" => grant
  }
  project       = var.project_id
  dataset_id    = google_bigquery_dataset.lineage.dataset_id
  role          = each.value.role
  user_by_email = trimprefix(local.members[each.value.account], "serviceAccount:")
}

resource "google_bigquery_table" "this" {
  for_each            = local.tables
  project             = var.project_id
  dataset_id          = google_bigquery_dataset.lineage.dataset_id
  table_id            = each.key
  description         = each.value.description
  schema              = file("${local._schemas_path}/bigquery/${each.value.schema}")
  clustering          = each.value.cluster_by
  deletion_protection = var.protect

  # Not required in queries: the views that deduplicate read all days.
  time_partitioning {
    type  = "DAY"
    field = each.value.partition_by
    expiration_ms = (
      var.retention.lineage_days == null
      ? null : var.retention.lineage_days * 86400000
    )
  }
}

resource "google_bigquery_table_iam_member" "append" {
  for_each   = local._row_appenders
  project    = var.project_id
  dataset_id = google_bigquery_dataset.lineage.dataset_id
  table_id   = google_bigquery_table.this[each.key].table_id
  role       = local.roles.row_appender
  member     = local.members[each.value]
  depends_on = [google_project_iam_custom_role.this]
}
