# The cluster and its network, alerts and the budget.
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
    condition = (
      google_container_cluster.this[0].enable_autopilot
      && google_container_cluster.this[0].deletion_protection
      && one(google_container_cluster.this[0].private_cluster_config).enable_private_nodes
      && !one(one(google_container_cluster.this[0].control_plane_endpoints_config).ip_endpoints_config).enabled
    )
    error_message = "nodes or control plane have public addresses"
  }
  assert {
    condition = (
      one(one(google_container_cluster.this[0].cluster_autoscaling).auto_provisioning_defaults).service_account
      == "assetmill-nodes@mill-test.iam.gserviceaccount.com"
    )
    error_message = "nodes run as the project's default account"
  }
  assert {
    condition = (
      google_compute_subnetwork.this[0].private_ip_google_access
      && !google_compute_network.this[0].auto_create_subnetworks
      && length(google_compute_router_nat.this) == 0
      && [for r in google_compute_subnetwork.this[0].secondary_ip_range : r.range_name] == ["pods", "services"]
    )
    error_message = "the network is open, or has no ranges for pods"
  }
  assert {
    condition = (
      output.kubernetes.credentials == "gcloud container clusters get-credentials assetmill --dns-endpoint --location=europe-west4 --project=mill-test"
      && output.images.mirror == "europe-west4-docker.pkg.dev/mill-test/assetmill-mirror"
      && output.images.repository == "europe-west4-docker.pkg.dev/mill-test/assetmill"
    )
    error_message = "outputs for kustomize are wrong"
  }
  assert {
    condition = (
      one(google_artifact_registry_repository.images.docker_config).immutable_tags
      && google_artifact_registry_repository.mirror[0].mode == "REMOTE_REPOSITORY"
    )
    error_message = "a tag can become another image, or KEDA's images are out of reach"
  }
  assert {
    condition     = output.environment_file == "ASSETMILL_BUCKET=mill-test-assets\nASSETMILL_DATASET=assetmill\nASSETMILL_PROJECT=mill-test\nASSETMILL_WORK_BUCKET=mill-test-work\n"
    error_message = "the environment is ${output.environment_file}"
  }
}

run "network_of_your_own" {
  command = plan

  variables {
    network = {
      id                  = "projects/host/global/networks/shared"
      subnetwork_id       = "projects/host/regions/europe-west4/subnetworks/gke"
      pods_range_name     = "gke-pods"
      services_range_name = "gke-services"
    }
  }

  assert {
    condition = (
      length(google_compute_network.this) == 0
      && google_container_cluster.this[0].network == "projects/host/global/networks/shared"
      && one(google_container_cluster.this[0].ip_allocation_policy).cluster_secondary_range_name == "gke-pods"
    )
    error_message = "an existing network is not used"
  }
}

run "half_a_network" {
  command = plan

  variables {
    network = { id = "projects/host/global/networks/shared" }
  }

  expect_failures = [google_container_cluster.this]
}

run "alerts" {
  command = plan

  variables {
    alerts = {
      oldest_job_hours = 6
      channels         = { ops = { labels = { email_address = "ops@example.com" } } }
    }
  }

  assert {
    condition = toset(keys(google_monitoring_alert_policy.this)) == toset([
      "batches-expiring", "dead-letters",
      "jobs-batch-expiring", "jobs-batch-poison", "jobs-dead-review-expiring",
      "jobs-online-expiring", "jobs-online-poison", "oldest-job",
    ])
    error_message = "alerts are ${join(", ", keys(google_monitoring_alert_policy.this))}"
  }
  assert {
    condition = (
      one(one(google_monitoring_alert_policy.this["jobs-online-expiring"].conditions).condition_threshold).threshold_value == floor(31 * 86400 * 0.8)
      && one(one(google_monitoring_alert_policy.this["oldest-job"].conditions).condition_threshold).threshold_value == 21600
    )
    error_message = "alerts come too late"
  }
  assert {
    condition = alltrue([
      for name, p in google_monitoring_alert_policy.this :
      length(p.documentation[0].content) > 0
      && length(regexall("resource.labels.subscription_id = \"[a-z-]+\"", one(one(p.conditions).condition_threshold).filter)) == 1
    ])
    error_message = "an alert does not say what to do, or of which subscription"
  }
  assert {
    condition = {
      for name, p in google_monitoring_alert_policy.this :
      name => trimprefix(one(one(p.documentation).links).url, "https://github.com/assetmill/assetmill/blob/main/docs/runbook/")
      } == {
      batches-expiring          = "expiring.md"
      dead-letters              = "dead-letters.md"
      jobs-batch-expiring       = "expiring.md"
      jobs-batch-poison         = "poison.md"
      jobs-dead-review-expiring = "expiring.md"
      jobs-online-expiring      = "expiring.md"
      jobs-online-poison        = "poison.md"
      oldest-job                = "oldest-job.md"
    }
    error_message = "an alert does not lead to its page of the runbook"
  }
  assert {
    condition = (
      google_monitoring_notification_channel.this["ops"].type == "email"
      && google_monitoring_notification_channel.this["ops"].labels.email_address == "ops@example.com"
    )
    error_message = "nobody hears of alerts"
  }
}

run "alerts_on_the_workers" {
  command = plan

  assert {
    condition = (
      toset(keys(output.alerts)) == toset([
        for name, a in jsondecode(file("../monitoring/alerts.json")) : name
        if !strcontains(a.query, "USD_PER_")
      ])
      && length(output.alerts) > 10
    )
    error_message = "alerts are ${join(", ", keys(output.alerts))}"
  }
  assert {
    condition = alltrue([
      for name, a in output.alerts :
      a.page == "https://github.com/assetmill/assetmill/blob/main/docs/runbook/${name}.md"
    ])
    error_message = "an alert does not lead to its page of the runbook"
  }
}

run "alerts_on_spending" {
  command = plan

  variables {
    alerts = {
      runbook              = "https://wiki.example.com/assetmill"
      usd_per_campaign_day = 2500.5
      usd_per_hour         = 4000
    }
  }

  assert {
    condition = (
      length(output.alerts) == length(jsondecode(file("../monitoring/alerts.json")))
      && endswith(output.alerts["spending"].query, "> 4000")
      && endswith(output.alerts["campaign-spending"].query, "> 2500.5")
    )
    error_message = "the limits are not in the alerts"
  }
  assert {
    condition = (
      output.alerts["spending"].page == "https://wiki.example.com/assetmill/spending.md"
      && strcontains(google_monitoring_alert_policy.this["oldest-job"].documentation[0].content, "https://wiki.example.com/assetmill/oldest-job.md")
    )
    error_message = "a runbook of one's own is not linked to"
  }
}

run "free_of_charge" {
  command = plan

  variables {
    alerts = { usd_per_hour = 0 }
  }

  expect_failures = [var.alerts]
}

run "runbook_without_a_place" {
  command = plan

  variables {
    alerts = { runbook = "docs/runbook" }
  }

  expect_failures = [var.alerts]
}

run "budget" {
  command = plan

  variables {
    budget = {
      amount          = 25000
      billing_account = "012345-6789AB-CDEF01"
      currency        = "EUR"
    }
  }

  assert {
    condition = (
      one(google_billing_budget.this[0].budget_filter).projects == toset(["projects/123456789012"])
      && one(one(google_billing_budget.this[0].amount).specified_amount).units == "25000"
      && [for r in google_billing_budget.this[0].threshold_rules : r.threshold_percent] == [0.5, 0.9, 1, 1]
      && google_billing_budget.this[0].threshold_rules[3].spend_basis == "FORECASTED_SPEND"
    )
    error_message = "the budget is another one"
  }
}

# Everything together, through an apply, so that values that are known only
# afterwards find their places too.
run "apply_with_everything_on" {
  variables {
    residency         = "strict"
    extra_regions     = { us-central1 = {} }
    csv_drops         = true
    org_policies      = true
    restricted_vip    = true
    reference_buckets = ["brand-assets"]
    cmek              = { enabled = true }
    perimeter         = { access_policy = "4711", enforced = true }
    budget            = { amount = 1000, billing_account = "012345-6789AB-CDEF01" }
    network           = { nat = true }
    cluster = {
      maintenance = {
        start_time = "2026-01-01T02:00:00Z"
        end_time   = "2026-01-01T06:00:00Z"
        recurrence = "FREQ=DAILY"
      }
    }
    alerts = { channels = { ops = { labels = { email_address = "ops@example.com" } } } }
    access = {
      analysts  = ["group:analysts@example.com", "domain:example.com"]
      operators = ["group:ops@example.com"]
      uploaders = ["group:marketing@example.com"]
    }
  }

  assert {
    condition = length(output.alert_channels) == 1 && length([
      for name in values(output.service_accounts) : name
      if endswith(name, "@mill-test.iam.gserviceaccount.com")
    ]) == 5
    error_message = "outputs are missing"
  }
  assert {
    condition     = google_storage_bucket_iam_member.object_table.member == "serviceAccount:bqcx-123456789012-abcd@gcp-sa-bigquery-condel.iam.gserviceaccount.com"
    error_message = "the connection's account is not granted anything"
  }
  assert {
    condition = alltrue([
      for name, a in output.alerts :
      a.channels == tolist(values(output.alert_channels))
    ]) && output.dashboard != null
    error_message = "nobody hears of the workers' alerts, or there is no dashboard"
  }
}
