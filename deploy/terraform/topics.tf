# Names of topics, subscriptions and filters are those of schemas/schemas.go.
locals {
  _schemas = {
    batches = "batch.proto"
    jobs    = "job.proto"
    results = "result.proto"
  }
  _topics = merge(
    {
      batches   = "Batches that wait for whoever runs them"
      jobs      = "Jobs to be done"
      jobs-dead = "Messages that were given up"
      results   = "One event for each job that has ended"
    },
    var.csv_drops ? { drops = "CSV files that were uploaded" } : {},
  )

  topic_ids = {
    for name, topic in google_pubsub_topic.this :
    name => "projects/${topic.project}/topics/${topic.name}"
  }

  _topic_roles = merge(
    {
      batches = {
        # The console resumes a batch whose message was lost, and puts back one
        # that is a dead letter.
        "roles/pubsub.publisher" = [
          local.members.console,
          local.members.worker,
        ]
        "roles/pubsub.viewer" = [local.members.worker]
      }
      jobs = {
        # The worker puts rows of a batch back that have to be called again,
        # the console puts dead letters back.
        "roles/pubsub.publisher" = concat(
          [
            local.members.console,
            local.members.submitter,
            local.members.worker,
          ],
          tolist(var.access.producers),
        )
        "roles/pubsub.viewer" = [
          local.members.submitter,
          local.members.worker,
        ]
      }
      jobs-dead = {
        "roles/pubsub.publisher" = [
          local.agents.pubsub,
          local.members.worker,
        ]
        "roles/pubsub.viewer" = [local.members.worker]
      }
      results = {
        "roles/pubsub.publisher"  = [local.members.worker]
        "roles/pubsub.subscriber" = tolist(var.access.consumers)
        "roles/pubsub.viewer"     = [local.members.worker]
      }
    },
    var.csv_drops ? {
      drops = { "roles/pubsub.publisher" = [local.agents.storage] }
    } : {},
  )
  _topic_grants = flatten([
    for topic, roles in local._topic_roles : [
      for role, members in roles : [
        for member in members :
        { topic = topic, role = role, member = member }
      ]
    ]
  ])
}

resource "google_pubsub_schema" "this" {
  for_each   = var.queue.schemas ? local._schemas : {}
  project    = var.project_id
  name       = "assetmill-${each.key}"
  type       = "PROTOCOL_BUFFER"
  definition = file("${path.module}/../../schemas/${each.value}")
  depends_on = [google_project_service.this]
}

resource "google_pubsub_topic" "this" {
  for_each                   = local._topics
  project                    = var.project_id
  name                       = each.key
  kms_key_name               = local.kms_keys[var.region]
  message_retention_duration = "${var.queue.replay_days * 86400}s"
  deletion_policy            = local.deletion_policy

  message_storage_policy {
    allowed_persistence_regions = [var.region]
    enforce_in_transit          = var.queue.enforce_in_transit
  }

  dynamic "schema_settings" {
    for_each = contains(keys(google_pubsub_schema.this), each.key) ? [""] : []
    content {
      schema   = "projects/${var.project_id}/schemas/${google_pubsub_schema.this[each.key].name}"
      encoding = "JSON"
    }
  }

  depends_on = [
    google_kms_crypto_key_iam_member.this,
    google_project_service.this,
  ]
}

resource "google_pubsub_topic_iam_member" "this" {
  for_each = {
    for grant in local._topic_grants :
    "${grant.topic} ${grant.role} ${grant.member}" => grant
  }
  project = var.project_id
  topic   = google_pubsub_topic.this[each.value.topic].name
  role    = each.value.role
  member  = each.value.member
}
