# Topics and subscriptions: nothing expires, nothing is lost without a trace.
mock_provider "google" {
  source = "./tests/mocks"
}

variables {
  project_id = "mill-test"
  region     = "europe-west4"
}

run "defaults" {
  command = plan

  assert {
    condition = {
      for name, s in google_pubsub_subscription.this : name => s.topic
      } == {
      batches          = "projects/mill-test/topics/batches"
      jobs-batch       = "projects/mill-test/topics/jobs"
      jobs-dead-review = "projects/mill-test/topics/jobs-dead"
      jobs-online      = "projects/mill-test/topics/jobs"
    }
    error_message = "subscriptions are not those that the worker reads"
  }
  assert {
    condition = {
      for name, s in google_pubsub_subscription.this :
      name => s.filter if s.filter != null
      } == {
      jobs-batch  = "attributes.mode = \"batch\""
      jobs-online = "NOT attributes.mode = \"batch\""
    }
    error_message = "the modes are not parted by their attribute"
  }
  assert {
    condition = alltrue([
      for s in google_pubsub_subscription.this :
      one(s.expiration_policy).ttl == ""
    ])
    error_message = "a subscription that nobody reads is deleted after a month"
  }
  assert {
    condition = alltrue([
      for s in google_pubsub_subscription.this :
      s.message_retention_duration == "2678400s"
      && !s.enable_exactly_once_delivery
      && s.deletion_policy == "PREVENT"
      && one(s.retry_policy).minimum_backoff == "1s"
    ])
    error_message = "messages are kept, repeated or protected otherwise than said"
  }
  assert {
    condition = {
      for name, s in google_pubsub_subscription.this :
      name => one(s.retry_policy).maximum_backoff
      } == {
      batches          = "60s"
      jobs-batch       = "600s"
      jobs-dead-review = "600s"
      jobs-online      = "600s"
    }
    error_message = "a batch is looked at too rarely, or others too often"
  }
  assert {
    condition = {
      for name, s in google_pubsub_subscription.this :
      name => s.ack_deadline_seconds
      } == {
      batches          = 60
      jobs-batch       = 60
      jobs-dead-review = 60
      jobs-online      = 60
    }
    error_message = "ack deadlines are not what the worker builds on"
  }
  # What can't be done is buried, and what is buried is kept.
  assert {
    condition = {
      for name, s in google_pubsub_subscription.this :
      name => "${s.dead_letter_policy[0].dead_letter_topic} ${s.dead_letter_policy[0].max_delivery_attempts}"
      if length(s.dead_letter_policy) > 0
      } == {
      jobs-batch  = "projects/mill-test/topics/jobs-dead 100"
      jobs-online = "projects/mill-test/topics/jobs-dead 100"
    }
    error_message = "what kills its workers is not buried, or dead letters are buried again"
  }
  assert {
    condition = alltrue([
      for name, s in google_pubsub_subscription.this : contains(
        output.grants["agent pubsub"],
        "roles/pubsub.subscriber on subscription ${name}",
      ) == (length(s.dead_letter_policy) > 0)
    ])
    error_message = "Pub/Sub may not take off what it has to bury"
  }
  assert {
    condition = contains(
      output.grants["agent pubsub"],
      "roles/pubsub.publisher on topic jobs-dead",
    )
    error_message = "Pub/Sub may not publish dead letters, and would drop nothing but bury nothing either"
  }
  assert {
    condition = anytrue([
      for s in google_pubsub_subscription.this :
      s.topic == "projects/mill-test/topics/jobs-dead"
    ])
    error_message = "dead letters are lost: their topic has no subscription"
  }
  assert {
    condition = alltrue([
      for t in google_pubsub_topic.this :
      one(t.message_storage_policy).allowed_persistence_regions == toset(["europe-west4"])
      && !one(t.message_storage_policy).enforce_in_transit
      && t.message_retention_duration == "604800s"
      && t.deletion_policy == "PREVENT"
    ])
    error_message = "messages rest elsewhere, or can't be replayed for a week"
  }
  assert {
    condition = {
      for name, t in google_pubsub_topic.this :
      name => "${one(t.schema_settings).schema} ${one(t.schema_settings).encoding}"
      if length(t.schema_settings) > 0
      } == {
      batches = "projects/mill-test/schemas/assetmill-batches JSON"
      jobs    = "projects/mill-test/schemas/assetmill-jobs JSON"
      results = "projects/mill-test/schemas/assetmill-results JSON"
    }
    error_message = "topics don't hold publishers to the schemas, or dead letters are held to one"
  }
  assert {
    condition = alltrue([
      for name, s in google_pubsub_schema.this : s.type == "PROTOCOL_BUFFER"
      && length(regexall("(?m)^message ", s.definition)) == 1
      && length(regexall("(?m)^import ", s.definition)) == 0
    ])
    error_message = "Pub/Sub takes schemas with one message and no import"
  }
}

run "without_schemas_in_transit_in_the_region" {
  command = plan

  variables {
    protect = false
    queue   = { schemas = false, enforce_in_transit = true, keep_days = 7 }
  }

  assert {
    condition = (
      length(google_pubsub_schema.this) == 0
      && alltrue([
        for t in google_pubsub_topic.this : length(t.schema_settings) == 0
        && one(t.message_storage_policy).enforce_in_transit
        && t.deletion_policy == "DELETE"
      ])
      && alltrue([
        for s in google_pubsub_subscription.this :
        s.message_retention_duration == "604800s"
      ])
    )
    error_message = "the queue's settings have no effect"
  }
}

run "too_few_deliveries" {
  command = plan

  variables {
    queue = { delivery_attempts = 3 }
  }

  expect_failures = [var.queue]
}

run "kept_for_too_long" {
  command = plan

  variables {
    queue = { keep_days = 32 }
  }

  expect_failures = [var.queue]
}
