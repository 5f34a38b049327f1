# Alerts on the workers' own metrics. What they ask is in alerts.json, which
# check/ runs over recorded metrics; each has its page in docs/runbook.
locals {
  _asked = {
    USD_PER_CAMPAIGN_DAY = var.usd_per_campaign_day
    USD_PER_HOUR         = var.usd_per_hour
  }
  # As text; 0 for what is not set.
  _limits = {
    for name, value in local._asked :
    name => value == null ? "0" : tostring(value)
  }

  # An alert on a limit that is not set is not made.
  _alerts = {
    for name, alert in jsondecode(file("${path.module}/alerts.json")) :
    name => merge(alert, {
      query = replace(
        replace(
          alert.query,
          "USD_PER_CAMPAIGN_DAY", local._limits.USD_PER_CAMPAIGN_DAY,
        ),
        "USD_PER_HOUR", local._limits.USD_PER_HOUR,
      )
    })
    if alltrue([
      for limit, value in local._asked :
      value != null || !strcontains(alert.query, limit)
    ])
  }
}

resource "google_monitoring_alert_policy" "this" {
  for_each              = local._alerts
  project               = var.project_id
  display_name          = each.value.title
  combiner              = "OR"
  severity              = each.value.severity
  notification_channels = var.channels

  conditions {
    display_name = each.value.title
    condition_prometheus_query_language {
      query               = each.value.query
      duration            = "${each.value.for_seconds}s"
      evaluation_interval = "60s"
      # The metrics come with the first worker.
      disable_metric_validation = true
    }
  }

  documentation {
    content   = "${each.value.text}\n\n[What to do](${var.runbook}/${each.key}.md)"
    mime_type = "text/markdown"
    links {
      display_name = "Runbook"
      url          = "${var.runbook}/${each.key}.md"
    }
  }
}
