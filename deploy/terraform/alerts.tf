# Alerts on what Google measures itself: they work before the first worker
# runs, and when none does. Those on the workers' own metrics, and the
# dashboard, are the module in deploy/monitoring.
locals {
  _subscription_metrics = "pubsub.googleapis.com/subscription"

  _alerts = merge(
    {
      dead-letters = {
        page         = "dead-letters"
        title        = "assetmill: messages were given up"
        severity     = "WARNING"
        subscription = "jobs-dead-review"
        metric       = "num_undelivered_messages"
        above        = 0
        seconds      = 300
        aligner      = "ALIGN_MAX"
        text = join(" ", [
          "`assetmill dead list` says which and why; `assetmill dead replay`",
          "puts them back.",
        ])
      }
      oldest-job = {
        page         = "oldest-job"
        title        = "assetmill: jobs wait too long"
        severity     = "WARNING"
        subscription = "jobs-online"
        metric       = "oldest_unacked_message_age"
        above        = var.alerts.oldest_job_hours * 3600
        seconds      = 600
        aligner      = "ALIGN_MAX"
        text = join(" ", [
          "Either no worker runs, or Vertex gives less than is asked for, or",
          "a submission is paused.",
        ])
      }
    },
    # Pub/Sub drops what is older, without a word.
    {
      for name, s in local.subscriptions : "${name}-expiring" => {
        page         = "expiring"
        title        = "assetmill: messages of ${name} are about to be lost"
        severity     = "CRITICAL"
        subscription = name
        metric       = "oldest_unacked_message_age"
        above        = floor(var.queue.keep_days * 86400 * 0.8)
        seconds      = 300
        aligner      = "ALIGN_MAX"
        text = join(" ", [
          "Pub/Sub keeps a message for ${var.queue.keep_days} days and then",
          "drops it. Let workers run, resume what is paused, or review the",
          "dead letters.",
        ])
      }
    },
    # Pub/Sub itself gives up on what kills its workers.
    {
      for name, s in local.subscriptions : "${name}-poison" => {
        page         = "poison"
        title        = "assetmill: Pub/Sub gave up on messages of ${name}"
        severity     = "WARNING"
        subscription = name
        metric       = "dead_letter_message_count"
        above        = 0
        seconds      = 0
        aligner      = "ALIGN_SUM"
        text = join(" ", [
          "They were given back ${var.queue.delivery_attempts} times: their",
          "workers died of them, or their submission was paused for long.",
          "They are on jobs-dead-review.",
        ])
      } if s.dead_letter
    },
  )
}

resource "google_monitoring_notification_channel" "this" {
  for_each     = var.alerts.channels
  project      = var.project_id
  display_name = "assetmill ${each.key}"
  type         = each.value.type
  labels       = each.value.labels
  depends_on   = [google_project_service.this]
}

resource "google_monitoring_alert_policy" "this" {
  for_each     = local._alerts
  project      = var.project_id
  display_name = each.value.title
  combiner     = "OR"
  severity     = each.value.severity

  notification_channels = [
    for channel in google_monitoring_notification_channel.this : channel.id
  ]

  conditions {
    display_name = each.value.title
    condition_threshold {
      filter = join(" AND ", [
        "resource.type = \"pubsub_subscription\"",
        "resource.labels.subscription_id = \"${each.value.subscription}\"",
        "metric.type = \"${local._subscription_metrics}/${each.value.metric}\"",
      ])
      comparison      = "COMPARISON_GT"
      threshold_value = each.value.above
      duration        = "${each.value.seconds}s"
      aggregations {
        alignment_period   = "300s"
        per_series_aligner = each.value.aligner
      }
    }
  }

  documentation {
    content   = "${each.value.text}\n\n[What to do](${var.alerts.runbook}/${each.value.page}.md)"
    mime_type = "text/markdown"
    links {
      display_name = "Runbook"
      url          = "${var.alerts.runbook}/${each.value.page}.md"
    }
  }

  depends_on = [
    google_project_service.this,
    google_pubsub_subscription.this,
  ]
}

module "monitoring" {
  source = "../monitoring"

  project_id = var.project_id
  channels = [
    for channel in google_monitoring_notification_channel.this : channel.id
  ]
  runbook              = var.alerts.runbook
  usd_per_campaign_day = var.alerts.usd_per_campaign_day
  usd_per_hour         = var.alerts.usd_per_hour

  depends_on = [google_project_service.this]
}
