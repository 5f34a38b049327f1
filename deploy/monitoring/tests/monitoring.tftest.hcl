mock_provider "google" {}

variables {
  project_id = "mill-test"
}

run "defaults" {
  command = plan

  assert {
    condition = (
      length(google_monitoring_alert_policy.this)
      == length(jsondecode(file("alerts.json"))) - 2
      && !contains(keys(google_monitoring_alert_policy.this), "spending")
      && !contains(keys(google_monitoring_alert_policy.this), "campaign-spending")
    )
    error_message = "alerts are ${join(", ", keys(google_monitoring_alert_policy.this))}"
  }
  assert {
    condition = alltrue([
      for name, p in google_monitoring_alert_policy.this :
      one(one(p.documentation).links).url
      == "https://github.com/assetmill/assetmill/blob/main/docs/runbook/${name}.md"
      && strcontains(one(p.documentation).content, "/${name}.md)")
    ])
    error_message = "an alert does not link to its page"
  }
  assert {
    condition     = !strcontains(google_monitoring_dashboard.this.dashboard_json, "USD_PER")
    error_message = "the dashboard has a limit without a value"
  }
}

run "limits" {
  command = plan

  variables {
    channels             = ["projects/mill-test/notificationChannels/1"]
    usd_per_campaign_day = 250.5
    usd_per_hour         = 4000
  }

  assert {
    condition = (
      endswith(
        one(one(google_monitoring_alert_policy.this["spending"].conditions).condition_prometheus_query_language).query,
        "* 3600 > 4000"
      )
      && endswith(
        one(one(google_monitoring_alert_policy.this["campaign-spending"].conditions).condition_prometheus_query_language).query,
        "> 250.5"
      )
    )
    error_message = "a limit is not in its alert"
  }
  assert {
    condition = (
      strcontains(google_monitoring_dashboard.this.dashboard_json, "vector(4000) > 0")
      && strcontains(google_monitoring_dashboard.this.dashboard_json, "vector(250.5) > 0")
    )
    error_message = "a limit is not in the dashboard"
  }
  assert {
    condition = alltrue([
      for p in google_monitoring_alert_policy.this :
      p.notification_channels == tolist(["projects/mill-test/notificationChannels/1"])
    ])
    error_message = "nobody hears of an alert"
  }
}
