# GKE Autopilot for the workers. What runs on it is in deploy/kubernetes.
resource "google_container_cluster" "this" {
  count               = var.cluster.create ? 1 : 0
  project             = var.project_id
  name                = var.cluster.name
  location            = var.region
  description         = "Workers of assetmill"
  network             = local.network_id
  subnetwork          = local.subnetwork_id
  enable_autopilot    = true
  deletion_protection = var.protect

  # Nodes without public addresses, and a control plane that is reached by
  # name and IAM alone, from anywhere.
  private_cluster_config {
    enable_private_nodes = true
  }
  control_plane_endpoints_config {
    dns_endpoint_config {
      allow_external_traffic = true
    }
    ip_endpoints_config {
      enabled = false
    }
  }

  ip_allocation_policy {
    cluster_secondary_range_name  = var.network.pods_range_name
    services_secondary_range_name = var.network.services_range_name
  }

  # Otherwise nodes run as the project's default account, an Editor.
  cluster_autoscaling {
    auto_provisioning_defaults {
      service_account = trimprefix(local.members.nodes, "serviceAccount:")
      oauth_scopes    = ["https://www.googleapis.com/auth/cloud-platform"]
    }
  }

  release_channel {
    channel = var.cluster.release_channel
  }

  # Nodes are replaced at hours when calls in flight cost least to wait for.
  dynamic "maintenance_policy" {
    for_each = var.cluster.maintenance == null ? [] : [var.cluster.maintenance]
    content {
      recurring_window {
        start_time = maintenance_policy.value.start_time
        end_time   = maintenance_policy.value.end_time
        recurrence = maintenance_policy.value.recurrence
      }
    }
  }

  dynamic "database_encryption" {
    for_each = var.cmek.enabled ? [""] : []
    content {
      state    = "ENCRYPTED"
      key_name = local.kms_keys[var.region]
    }
  }

  lifecycle {
    precondition {
      condition = (
        (var.network.id == null) == (var.network.subnetwork_id == null)
      )
      error_message = join(" ", [
        "An existing network needs network.id and network.subnetwork_id,",
        "a new one neither.",
      ])
    }
  }

  depends_on = [
    google_artifact_registry_repository_iam_member.this,
    google_kms_crypto_key_iam_member.this,
    google_project_iam_member.this,
    google_project_service.this,
  ]
}
