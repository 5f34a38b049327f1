# Google's APIs under the addresses of restricted.googleapis.com, which serve
# only what VPC Service Controls supports: nothing else on the network can be
# reached by the name of a Google API.
locals {
  _restricted_addresses = [
    "199.36.153.4", "199.36.153.5", "199.36.153.6", "199.36.153.7",
  ]
  # Domains by the name that holds the addresses; all others point to it.
  _restricted_domains = var.restricted_vip ? {
    "googleapis.com" = "restricted.googleapis.com"
    "pkg.dev"        = "pkg.dev"
  } : {}
}

resource "google_dns_managed_zone" "restricted" {
  for_each    = local._restricted_domains
  project     = var.project_id
  name        = "assetmill-${replace(each.key, ".", "-")}"
  dns_name    = "${each.key}."
  description = "${each.key} under the restricted VIP"
  visibility  = "private"

  private_visibility_config {
    networks {
      network_url = local.network_id
    }
  }

  depends_on = [google_project_service.this]
}

resource "google_dns_record_set" "address" {
  for_each     = local._restricted_domains
  project      = var.project_id
  managed_zone = google_dns_managed_zone.restricted[each.key].name
  name         = "${each.value}."
  type         = "A"
  ttl          = 300
  rrdatas      = local._restricted_addresses
}

resource "google_dns_record_set" "alias" {
  for_each     = local._restricted_domains
  project      = var.project_id
  managed_zone = google_dns_managed_zone.restricted[each.key].name
  name         = "*.${each.key}."
  type         = "CNAME"
  ttl          = 300
  rrdatas      = ["${each.value}."]
}

resource "google_compute_route" "restricted" {
  count            = local._make_network && var.restricted_vip ? 1 : 0
  project          = var.project_id
  name             = "assetmill-restricted-vip"
  description      = "restricted.googleapis.com"
  network          = local.network_id
  dest_range       = "199.36.153.4/30"
  next_hop_gateway = "default-internet-gateway"
}
