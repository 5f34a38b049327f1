# The images: one bucket for each region that data may rest in.
locals {
  assets_buckets = merge(
    { (var.region) = "${local.prefix}-assets" },
    {
      for region in keys(var.extra_regions) :
      region => "${local.prefix}-assets-${region}"
    },
  )
  prefix = coalesce(var.prefix, var.project_id)

  # Retention classes are the first folder of an asset's name. `keep` has no
  # rule. The classes are those of jobs.Retentions.
  retention_classes = {
    "30d"   = { action = "Delete", days = 30 }
    "90d"   = { action = "Delete", days = 90 }
    "365d"  = { action = "Delete", days = 365 }
    archive = { action = "Archive", days = var.retention.archive_after_days }
    keep    = null
  }

  _asset_roles = {
    # Creating without deleting is creating without overwriting: an image
    # that is stored stays as it is, whatever the worker does.
    "roles/storage.objectCreator" = [local.members.worker]
    "roles/storage.objectViewer" = [
      local.members.console,
      local.members.worker,
    ]
    # To see where the bucket is, before anything is written to it.
    "roles/storage.legacyBucketReader" = [
      local.agents.vertex,
      local.members.worker,
    ]
  }
  _asset_grants = flatten([
    for region in keys(local.assets_buckets) : [
      for role, members in local._asset_roles : [
        for member in members :
        { region = region, role = role, member = member }
      ]
    ]
  ])
}

resource "google_storage_bucket" "assets" {
  for_each        = local.assets_buckets
  project         = var.project_id
  name            = each.value
  location        = upper(each.key)
  storage_class   = "STANDARD"
  force_destroy   = false
  deletion_policy = local.deletion_policy

  public_access_prevention    = "enforced"
  uniform_bucket_level_access = true

  soft_delete_policy {
    retention_duration_seconds = var.retention.undelete_days * 86400
  }

  # Objects are created once and never overwritten.
  versioning {
    enabled = false
  }

  dynamic "encryption" {
    for_each = var.cmek.enabled ? [""] : []
    content {
      default_kms_key_name = local.kms_keys[each.key]
    }
  }

  dynamic "lifecycle_rule" {
    for_each = {
      for class, rule in local.retention_classes :
      class => rule if rule != null
    }
    content {
      action {
        type = (
          lifecycle_rule.value.action == "Archive"
          ? "SetStorageClass" : "Delete"
        )
        storage_class = (
          lifecycle_rule.value.action == "Archive" ? "ARCHIVE" : null
        )
      }
      condition {
        age            = lifecycle_rule.value.days
        matches_prefix = ["${lifecycle_rule.key}/"]
        send_age_if_zero = (
          lifecycle_rule.value.days == 0 ? true : null
        )
      }
    }
  }

  # What a model wrote itself has been copied to its final name by then.
  lifecycle_rule {
    action {
      type = "Delete"
    }
    condition {
      age            = var.retention.straight_days
      matches_prefix = ["straight/"]
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

  lifecycle {
    precondition {
      condition = (
        each.key == var.region
        || contains(flatten(values(local.model_locations)), each.key)
      )
      error_message = join(" ", [
        "None of ${join(", ", local.models)} is served in ${each.key}, so no",
        "job could be bound to this region: add a model, or take the region",
        "out of extra_regions.",
      ])
    }
  }

  depends_on = [
    google_kms_crypto_key_iam_member.this,
    google_project_service.this,
  ]
}

resource "google_storage_bucket_iam_member" "assets" {
  for_each = {
    for grant in local._asset_grants :
    "${grant.region} ${grant.role} ${grant.member}" => grant
  }
  bucket = google_storage_bucket.assets[each.value.region].name
  role   = each.value.role
  member = each.value.member
}

# Where models write images themselves, Vertex does so with an account of its
# own, and only here. The worker copies them to their names and deletes them.
resource "google_storage_managed_folder" "straight" {
  for_each      = local.assets_buckets
  bucket        = google_storage_bucket.assets[each.key].name
  name          = "straight/"
  force_destroy = false
}

resource "google_storage_managed_folder_iam_member" "straight" {
  for_each = {
    for pair in setproduct(keys(local.assets_buckets), ["vertex", "worker"]) :
    "${pair[0]} ${pair[1]}" => { region = pair[0], writer = pair[1] }
  }
  bucket         = google_storage_bucket.assets[each.value.region].name
  managed_folder = "straight/"
  role           = "roles/storage.objectUser"
  member = (
    each.value.writer == "vertex" ? local.agents.vertex : local.members.worker
  )
  depends_on = [google_storage_managed_folder.straight]
}
