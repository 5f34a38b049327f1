# VPC Service Controls. A new perimeter only reports what it would refuse;
# read the audit log before you set perimeter.enforced.
locals {
  _perimeter_name = (
    var.perimeter == null ? "" : join("/", [
      "accessPolicies", var.perimeter.access_policy,
      "servicePerimeters", var.perimeter.name,
    ])
  )
  _perimeter_services = [
    for name in try(var.perimeter.services, []) : "${name}.googleapis.com"
  ]
  _perimeter_projects = [
    for number in concat(
      [local.project_number], tolist(try(var.perimeter.project_numbers, []))
    ) : "projects/${number}"
  ]
}

resource "google_access_context_manager_service_perimeter" "this" {
  count          = var.perimeter == null ? 0 : 1
  parent         = "accessPolicies/${var.perimeter.access_policy}"
  name           = local._perimeter_name
  title          = var.perimeter.name
  description    = "Data of assetmill"
  perimeter_type = "PERIMETER_TYPE_REGULAR"

  use_explicit_dry_run_spec = true

  spec {
    access_levels       = var.perimeter.access_levels
    resources           = local._perimeter_projects
    restricted_services = local._perimeter_services

    vpc_accessible_services {
      enable_restriction = true
      allowed_services   = ["RESTRICTED-SERVICES"]
    }

    dynamic "ingress_policies" {
      for_each = var.perimeter.ingress
      content {
        title = ingress_policies.key
        ingress_from {
          identities = ingress_policies.value.identities
          dynamic "sources" {
            for_each = ingress_policies.value.access_levels
            content {
              access_level = sources.value
            }
          }
        }
        ingress_to {
          resources = local._perimeter_projects
          dynamic "operations" {
            for_each = ingress_policies.value.services
            content {
              service_name = "${operations.value}.googleapis.com"
              method_selectors {
                method = "*"
              }
            }
          }
        }
      }
    }
  }

  dynamic "status" {
    for_each = var.perimeter.enforced ? [""] : []
    content {
      access_levels       = var.perimeter.access_levels
      resources           = local._perimeter_projects
      restricted_services = local._perimeter_services

      vpc_accessible_services {
        enable_restriction = true
        allowed_services   = ["RESTRICTED-SERVICES"]
      }

      dynamic "ingress_policies" {
        for_each = var.perimeter.ingress
        content {
          title = ingress_policies.key
          ingress_from {
            identities = ingress_policies.value.identities
            dynamic "sources" {
              for_each = ingress_policies.value.access_levels
              content {
                access_level = sources.value
              }
            }
          }
          ingress_to {
            resources = local._perimeter_projects
            dynamic "operations" {
              for_each = ingress_policies.value.services
              content {
                service_name = "${operations.value}.googleapis.com"
                method_selectors {
                  method = "*"
                }
              }
            }
          }
        }
      }
    }
  }

  # Last of all: an enforced perimeter may shut out whoever applies this.
  depends_on = [
    google_bigquery_table.asset_objects,
    google_bigquery_table.view,
    google_container_cluster.this,
    google_storage_notification.drops,
  ]
}
