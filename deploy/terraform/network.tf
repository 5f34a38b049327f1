# A network for the cluster, unless it is given one. Nodes have no public
# addresses; Google's APIs are reached on private paths.
locals {
  _make_network = var.cluster.create && var.network.id == null
  _make_nat     = local._make_network && var.network.nat

  network_id = (
    local._make_network
    ? one(google_compute_network.this[*].id) : var.network.id
  )
  subnetwork_id = (
    local._make_network
    ? one(google_compute_subnetwork.this[*].id) : var.network.subnetwork_id
  )
}

resource "google_compute_network" "this" {
  count                   = local._make_network ? 1 : 0
  project                 = var.project_id
  name                    = "assetmill"
  auto_create_subnetworks = false

  # With the restricted VIP and no NAT, the only way out is to Google.
  delete_default_routes_on_create = var.restricted_vip && !var.network.nat

  depends_on = [google_project_service.this]
}

resource "google_compute_subnetwork" "this" {
  count                    = local._make_network ? 1 : 0
  project                  = var.project_id
  name                     = "assetmill"
  region                   = var.region
  network                  = google_compute_network.this[0].id
  ip_cidr_range            = var.network.nodes_range
  private_ip_google_access = true

  secondary_ip_range {
    range_name    = "pods"
    ip_cidr_range = var.network.pods_range
  }
  secondary_ip_range {
    range_name    = "services"
    ip_cidr_range = var.network.services_range
  }
}

resource "google_compute_router" "this" {
  count   = local._make_nat ? 1 : 0
  project = var.project_id
  name    = "assetmill"
  region  = var.region
  network = google_compute_network.this[0].id
}

resource "google_compute_router_nat" "this" {
  count                              = local._make_nat ? 1 : 0
  project                            = var.project_id
  name                               = "assetmill"
  region                             = var.region
  router                             = google_compute_router.this[0].name
  nat_ip_allocate_option             = "AUTO_ONLY"
  source_subnetwork_ip_ranges_to_nat = "ALL_SUBNETWORKS_ALL_IP_RANGES"
}
