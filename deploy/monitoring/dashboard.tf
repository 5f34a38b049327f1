# A limit that is not set draws no line: see the queries with vector().
resource "google_monitoring_dashboard" "this" {
  project = var.project_id
  dashboard_json = replace(
    replace(
      file("${path.module}/dashboard.json"),
      "USD_PER_CAMPAIGN_DAY", local._limits.USD_PER_CAMPAIGN_DAY,
    ),
    "USD_PER_HOUR", local._limits.USD_PER_HOUR,
  )
}
