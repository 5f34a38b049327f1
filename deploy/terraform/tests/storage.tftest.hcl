# Buckets: nobody outside sees them, and everything in them has its term.
mock_provider "google" {
  source = "./tests/mocks"
}

variables {
  project_id = "mill-test"
  region     = "europe-west4"
}

run "closed_to_the_public" {
  command = plan

  variables {
    extra_regions = { us-central1 = {} }
  }

  assert {
    condition = alltrue([
      for b in concat(
        values(google_storage_bucket.assets), [google_storage_bucket.work]
      ) : b.public_access_prevention == "enforced"
    ])
    error_message = "a bucket can be made public"
  }
  assert {
    condition = alltrue([
      for b in concat(
        values(google_storage_bucket.assets), [google_storage_bucket.work]
      ) : b.uniform_bucket_level_access
    ])
    error_message = "a bucket lets objects have access lists of their own"
  }
  assert {
    condition = alltrue([
      for b in concat(
        values(google_storage_bucket.assets), [google_storage_bucket.work]
      ) : !b.force_destroy && b.deletion_policy == "PREVENT"
    ])
    error_message = "a bucket can be deleted with what is in it"
  }
  assert {
    condition = {
      for region, b in google_storage_bucket.assets :
      region => { name = b.name, location = b.location }
      } == {
      europe-west4 = { name = "mill-test-assets", location = "EUROPE-WEST4" }
      us-central1 = {
        name = "mill-test-assets-us-central1", location = "US-CENTRAL1"
      }
    }
    error_message = "assets buckets are not one per region, in that region"
  }
  assert {
    condition = (
      google_storage_bucket.work.name == "mill-test-work"
      && google_storage_bucket.work.location == "EUROPE-WEST4"
    )
    error_message = "the work bucket is not where it belongs"
  }
}

run "defaults" {
  command = plan

  assert {
    condition = {
      for rule in google_storage_bucket.assets["europe-west4"].lifecycle_rule :
      try(one(rule.condition).matches_prefix[0], "") => join(" ", compact([
        one(rule.action).type,
        one(rule.action).storage_class,
        one(rule.condition).age,
      ]))
      } == {
      ""          = "AbortIncompleteMultipartUpload 1"
      "30d/"      = "Delete 30"
      "90d/"      = "Delete 90"
      "365d/"     = "Delete 365"
      "archive/"  = "SetStorageClass ARCHIVE 30"
      "straight/" = "Delete 3"
    }
    error_message = "retention classes are not what their names say"
  }
  assert {
    condition = alltrue([
      for rule in google_storage_bucket.assets["europe-west4"].lifecycle_rule :
      one(rule.action).type == "AbortIncompleteMultipartUpload"
      || try(length(one(rule.condition).matches_prefix), 0) == 1
    ])
    error_message = "a rule acts on the whole bucket"
  }
  assert {
    condition     = google_storage_bucket.assets["europe-west4"].soft_delete_policy[0].retention_duration_seconds == 604800
    error_message = "a deleted asset can't be restored for a week"
  }
  assert {
    condition = {
      for rule in google_storage_bucket.work.lifecycle_rule :
      join("*", compact([
        try(one(rule.condition).matches_prefix[0], ""),
        try(one(rule.condition).matches_suffix[0], ""),
      ])) => "${one(rule.action).type} ${one(rule.condition).age}"
      } == {
      ""                = "AbortIncompleteMultipartUpload 1"
      "batches/"        = "Delete 180"
      "batches/*.jsonl" = "Delete 30"
      "workers/"        = "Delete 1"
    }
    error_message = "the ledger has a term, or something else has none"
  }
  assert {
    condition     = google_storage_bucket.work.soft_delete_policy[0].retention_duration_seconds == 0
    error_message = "every sign of life is kept and paid for after it was overwritten"
  }
  assert {
    condition = (
      length(google_storage_notification.drops) == 0
      && !contains(keys(google_pubsub_topic.this), "drops")
    )
    error_message = "drops are announced although nobody asked for it"
  }
}

run "archived_at_once" {
  command = plan

  variables {
    retention = { archive_after_days = 0 }
  }

  assert {
    condition = one([
      for rule in google_storage_bucket.assets["europe-west4"].lifecycle_rule :
      one(rule.condition)
      if try(one(rule.condition).matches_prefix[0], "") == "archive/"
    ]).send_age_if_zero
    error_message = "an age of 0 is not sent, and the rule would have no condition"
  }
}

run "ledger_with_a_term" {
  command = plan

  variables {
    retention = { ledger_days = 400 }
  }

  assert {
    condition = contains([
      for rule in google_storage_bucket.work.lifecycle_rule :
      one(rule.condition).age
      if try(one(rule.condition).matches_prefix[0], "") == "ledger/"
    ], 400)
    error_message = "ledger_days has no effect"
  }
}

run "ledger_shorter_than_its_messages" {
  command = plan

  variables {
    retention = { ledger_days = 60 }
  }

  expect_failures = [var.retention]
}

run "drops" {
  command = plan

  variables {
    csv_drops = true
    access    = { uploaders = ["group:marketing@example.com"] }
  }

  assert {
    condition = (
      google_storage_notification.drops[0].bucket == "mill-test-work"
      && google_storage_notification.drops[0].object_name_prefix == "drops/"
      && google_storage_notification.drops[0].topic == "projects/mill-test/topics/drops"
      && google_storage_notification.drops[0].event_types == toset(["OBJECT_FINALIZE"])
    )
    error_message = "uploads of CSV files are not announced"
  }
  assert {
    condition = contains(
      output.grants["agent storage"], "roles/pubsub.publisher on topic drops"
    )
    error_message = "Cloud Storage may not publish what was uploaded"
  }
  assert {
    condition = output.grants["group:marketing@example.com"] == tolist([
      "roles/storage.objectUser on folder mill-test-work/drops/",
    ])
    error_message = "uploaders see more than their folder"
  }
  assert {
    condition = alltrue([
      for grant in [
        "roles/pubsub.subscriber on subscription drops",
        "roles/storage.objectViewer on folder mill-test-work/drops/",
      ] : contains(output.grants.submitter, grant)
    ])
    error_message = "the submitter can't read what was uploaded"
  }
  assert {
    condition = contains([
      for rule in google_storage_bucket.work.lifecycle_rule :
      one(rule.condition).age
      if try(one(rule.condition).matches_prefix[0], "") == "drops/"
    ], 90)
    error_message = "dropped files stay for ever"
  }
}

