# The work bucket: the ledger, signs of life, receipts, controls, files of
# batches, and CSV files that were uploaded.
locals {
  # What keeps a job from being paid twice outlives every message of it: 62
  # days on topic and subscription, 62 more after a replay, and a margin.
  record_days = 180

  # Days until what lies under a prefix is deleted; null: never. Of a batch the
  # large files go first. Its manifest says whose its jobs are.
  _work_days = {
    batches = { prefix = "batches/", days = local.record_days }
    drops = {
      prefix = "drops/"
      days   = var.csv_drops ? var.retention.drops_days : null
    }
    files = {
      prefix = "batches/"
      suffix = ".jsonl"
      days   = var.retention.batches_days
    }
    ledger  = { prefix = "ledger/", days = var.retention.ledger_days }
    workers = { prefix = "workers/", days = 1 }
  }

  _work_roles = {
    "roles/storage.objectUser" = [local.members.worker]
    # To list names, which hold no prompt, and to look at the bucket.
    "roles/storage.legacyBucketReader" = [
      local.agents.vertex,
      local.members.console,
      local.members.submitter,
      local.members.worker,
    ]
  }
  _work_grants = flatten([
    for role, members in local._work_roles : [
      for member in members : { role = role, member = member }
    ]
  ])

  # All but the worker see only what is theirs. Nobody else touches the
  # ledger.
  _folders = merge(
    {
      "batches/" = {
        # The console writes that a batch is to be cancelled. It can't replace
        # what is there.
        "roles/storage.objectCreator" = [local.members.console]
        "roles/storage.objectUser"    = [local.agents.vertex]
        "roles/storage.objectViewer"  = [local.members.console]
      }
      "control/" = {
        "roles/storage.objectUser" = [
          local.members.console,
          local.members.submitter,
        ]
      }
      "submissions/" = {
        "roles/storage.objectUser"   = [local.members.submitter]
        "roles/storage.objectViewer" = [local.members.console]
      }
    },
    var.csv_drops ? {
      "drops/" = {
        "roles/storage.objectUser"   = tolist(var.access.uploaders)
        "roles/storage.objectViewer" = [local.members.submitter]
      }
    } : {},
  )
  _folder_grants = flatten([
    for folder, roles in local._folders : [
      for role, members in roles : [
        for member in members :
        { folder = folder, role = role, member = member }
      ]
    ]
  ])
}

resource "google_storage_bucket" "work" {
  project         = var.project_id
  name            = "${local.prefix}-work"
  location        = upper(var.region)
  storage_class   = "STANDARD"
  force_destroy   = false
  deletion_policy = local.deletion_policy

  public_access_prevention    = "enforced"
  uniform_bucket_level_access = true

  # Every sign of life overwrites an object. Kept for a week, each would be
  # paid for.
  soft_delete_policy {
    retention_duration_seconds = 0
  }

  versioning {
    enabled = false
  }

  dynamic "encryption" {
    for_each = var.cmek.enabled ? [""] : []
    content {
      default_kms_key_name = local.kms_keys[var.region]
    }
  }

  dynamic "lifecycle_rule" {
    for_each = {
      for name, rule in local._work_days :
      name => rule if rule.days != null
    }
    content {
      action {
        type = "Delete"
      }
      condition {
        age            = lifecycle_rule.value.days
        matches_prefix = [lifecycle_rule.value.prefix]
        matches_suffix = try([lifecycle_rule.value.suffix], null)
      }
    }
  }

  lifecycle_rule {
    action {
      type = "AbortIncompleteMultipartUpload"
    }
    condition {
      age = 1
    }
  }

  depends_on = [
    google_kms_crypto_key_iam_member.this,
    google_project_service.this,
  ]
}

resource "google_storage_bucket_iam_member" "work" {
  for_each = {
    for grant in local._work_grants :
    "${grant.role} ${grant.member}" => grant
  }
  bucket = google_storage_bucket.work.name
  role   = each.value.role
  member = each.value.member
}

resource "google_storage_managed_folder" "work" {
  for_each      = local._folders
  bucket        = google_storage_bucket.work.name
  name          = each.key
  force_destroy = false
}

resource "google_storage_managed_folder_iam_member" "work" {
  for_each = {
    for grant in local._folder_grants :
    "${grant.folder} ${grant.role} ${grant.member}" => grant
  }
  bucket         = google_storage_bucket.work.name
  managed_folder = google_storage_managed_folder.work[each.value.folder].name
  role           = each.value.role
  member         = each.value.member
}

# One message for each CSV file that was uploaded, at least once.
resource "google_storage_notification" "drops" {
  count              = var.csv_drops ? 1 : 0
  bucket             = google_storage_bucket.work.name
  topic              = local.topic_ids["drops"]
  payload_format     = "JSON_API_V1"
  event_types        = ["OBJECT_FINALIZE"]
  object_name_prefix = "drops/"
  depends_on = [
    data.google_storage_project_service_account.this,
    google_pubsub_topic_iam_member.this,
  ]
}
