output "alerts" {
  description = "Alerts by name: title, query, page of the runbook, channels."
  value = {
    for name, alert in google_monitoring_alert_policy.this : name => {
      channels = alert.notification_channels
      page     = one(one(alert.documentation).links).url
      query    = one(one(alert.conditions).condition_prometheus_query_language).query
      title    = alert.display_name
    }
  }
}

output "dashboard" {
  description = "Id of the dashboard."
  value       = google_monitoring_dashboard.this.id
}
