locals {
  # A subscription's filter can't be changed: another one makes another
  # subscription, and what waits in the old one is lost.
  _subscriptions = merge(
    {
      batches = {
        topic = "batches"
        # Each delivery takes a batch one step further, for days if need be:
        # any bound on deliveries would be the end of a batch under way.
        dead_letter = false
        # One step finds out little that the one before did not.
        maximum_backoff = "60s"
        roles = {
          "roles/pubsub.subscriber" = [local.members.worker]
          "roles/pubsub.viewer"     = [local.members.worker]
        }
      }
      jobs-batch = {
        topic  = "jobs"
        filter = "attributes.mode = \"batch\""
        roles = {
          "roles/pubsub.subscriber" = [local.members.worker]
          "roles/pubsub.viewer"     = [local.members.worker]
        }
      }
      # Dead letters stay until somebody has looked at them.
      jobs-dead-review = {
        topic       = "jobs-dead"
        dead_letter = false
        roles = {
          "roles/pubsub.subscriber" = [local.members.console]
          "roles/pubsub.viewer"     = [local.members.console]
        }
      }
      jobs-online = {
        topic = "jobs"
        # A message without the attribute is online.
        filter = "NOT attributes.mode = \"batch\""
        roles = {
          "roles/pubsub.subscriber" = [local.members.worker]
          "roles/pubsub.viewer"     = [local.members.worker]
        }
      }
    },
    var.csv_drops ? {
      drops = {
        topic        = "drops"
        ack_deadline = 600
        roles = {
          "roles/pubsub.subscriber" = [local.members.submitter]
          "roles/pubsub.viewer"     = [local.members.submitter]
        }
      }
    } : {},
  )
  subscriptions = {
    for name, s in local._subscriptions : name => {
      topic        = s.topic
      ack_deadline = try(s.ack_deadline, 60)
      filter       = try(s.filter, null)
      dead_letter  = try(s.dead_letter, true)
      maximum_backoff = try(
        s.maximum_backoff, var.queue.maximum_backoff
      )
      roles = s.roles
    }
  }

  _subscription_grants = concat(
    flatten([
      for name, s in local.subscriptions : [
        for role, members in s.roles : [
          for member in members :
          { subscription = name, role = role, member = member }
        ]
      ]
    ]),
    # Pub/Sub takes a message off this subscription to bury it.
    [
      for name, s in local.subscriptions : {
        subscription = name
        role         = "roles/pubsub.subscriber"
        member       = local.agents.pubsub
      } if s.dead_letter
    ],
  )
}

resource "google_pubsub_subscription" "this" {
  for_each                   = local.subscriptions
  project                    = var.project_id
  name                       = each.key
  topic                      = local.topic_ids[each.value.topic]
  filter                     = each.value.filter
  ack_deadline_seconds       = each.value.ack_deadline
  message_retention_duration = "${var.queue.keep_days * 86400}s"
  deletion_policy            = local.deletion_policy

  # Delivery is at least once on purpose: the ledger makes effects happen
  # once, and exactly-once delivery costs most of the throughput.
  enable_exactly_once_delivery = false

  # Without this a subscription that nobody reads for 31 days is deleted.
  expiration_policy {
    ttl = ""
  }

  retry_policy {
    minimum_backoff = var.queue.minimum_backoff
    maximum_backoff = each.value.maximum_backoff
  }

  dynamic "dead_letter_policy" {
    for_each = each.value.dead_letter ? [""] : []
    content {
      dead_letter_topic     = local.topic_ids["jobs-dead"]
      max_delivery_attempts = var.queue.delivery_attempts
    }
  }
}

resource "google_pubsub_subscription_iam_member" "this" {
  for_each = {
    for grant in local._subscription_grants :
    "${grant.subscription} ${grant.role} ${grant.member}" => grant
  }
  project      = var.project_id
  subscription = google_pubsub_subscription.this[each.value.subscription].name
  role         = each.value.role
  member       = each.value.member
}
