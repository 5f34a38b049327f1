# What nobody in the project may do any more, whatever role they have.
locals {
  _enforced_constraints = toset([
    "iam.automaticIamGrantsForDefaultServiceAccounts",
    "iam.disableServiceAccountKeyCreation",
    "iam.disableServiceAccountKeyUpload",
    "storage.publicAccessPrevention",
    "storage.secureHttpTransport",
    "storage.uniformBucketLevelAccess",
  ])
}

resource "google_org_policy_policy" "enforced" {
  for_each = var.org_policies ? local._enforced_constraints : toset([])
  parent   = "projects/${var.project_id}"
  name     = "projects/${var.project_id}/policies/${each.key}"

  spec {
    rules {
      enforce = "TRUE"
    }
  }

  depends_on = [google_project_service.this]
}

resource "google_org_policy_policy" "locations" {
  count  = var.org_policies ? 1 : 0
  parent = "projects/${var.project_id}"
  name   = "projects/${var.project_id}/policies/gcp.resourceLocations"

  spec {
    rules {
      values {
        allowed_values = [
          for region in sort(tolist(local.regions)) : "in:${region}-locations"
        ]
      }
    }
  }

  depends_on = [google_project_service.this]
}
