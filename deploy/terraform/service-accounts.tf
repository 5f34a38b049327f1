# One account per role. None of them has a key: pods get their tokens from
# Workload Identity, people from impersonation.
locals {
  _has_cluster = var.cluster.create || var.cluster.workload_pool != null
  _accounts = {
    console   = "Shows progress and images, signs links, pauses submissions"
    submitter = "Checks CSV files and publishes their rows as jobs"
    worker    = "Calls models, stores images and records lineage"
  }

  _all_accounts = merge(
    local._accounts,
    var.cluster.create ? { nodes = "Runs the nodes of the cluster" } : {},
    local._has_cluster ? { scaler = "Reads metrics for KEDA" } : {},
  )

  # The members' names follow from the accounts' ids, so that a plan can show
  # every grant before anything exists.
  members = {
    for name, account in google_service_account.this :
    name => "serviceAccount:${account.account_id}@${account.project}.iam.gserviceaccount.com"
  }

  _custom_roles = {
    model_caller = {
      id    = "assetmillModelCaller"
      title = "assetmill model caller"
      description = join(" ", [
        "Calls models, online and by batch prediction.",
        "roles/aiplatform.user could also train and deploy them.",
      ])
      permissions = [
        "aiplatform.batchPredictionJobs.cancel",
        "aiplatform.batchPredictionJobs.create",
        "aiplatform.batchPredictionJobs.get",
        "aiplatform.batchPredictionJobs.list",
        "aiplatform.endpoints.predict",
      ]
    }
    row_appender = {
      id    = "assetmillRowAppender"
      title = "assetmill row appender"
      description = join(" ", [
        "Appends rows to a table.",
        "roles/bigquery.dataEditor could also delete the table.",
      ])
      permissions = [
        "bigquery.tables.get",
        "bigquery.tables.updateData",
      ]
    }
  }
  roles = {
    for name, role in google_project_iam_custom_role.this :
    name => "projects/${role.project}/roles/${role.role_id}"
  }

  _project_roles = {
    console = [
      "roles/bigquery.jobUser",
      "roles/monitoring.viewer",
    ]
    nodes     = ["roles/container.defaultNodeServiceAccount"]
    scaler    = ["roles/monitoring.viewer"]
    submitter = ["roles/bigquery.jobUser"]
    # The first two are for a collector of metrics and traces beside it.
    worker = [
      "roles/cloudtrace.agent",
      "roles/monitoring.metricWriter",
      local.roles.model_caller,
    ]
  }
  _project_grants = concat(
    flatten([
      for name, roles in local._project_roles : [
        for role in roles : { member = local.members[name], role = role }
      ] if contains(keys(local._all_accounts), name)
    ]),
    [
      for member in var.access.analysts :
      { member = member, role = "roles/bigquery.jobUser" }
    ],
  )

  # Kubernetes service accounts that may act as one of the accounts.
  workloads = merge(
    {
      for name in keys(local._accounts) : name => {
        namespace       = var.cluster.namespace
        service_account = name
      }
    },
    local._has_cluster ? {
      scaler = { namespace = "keda", service_account = "keda-operator" }
    } : {},
  )
  workload_pool = coalesce(
    var.cluster.workload_pool, "${var.project_id}.svc.id.goog"
  )
}

resource "google_service_account" "this" {
  for_each     = local._all_accounts
  project      = var.project_id
  account_id   = "assetmill-${each.key}"
  display_name = "assetmill ${each.key}"
  description  = each.value
  depends_on   = [google_project_service.this]
}

resource "google_project_iam_custom_role" "this" {
  for_each    = local._custom_roles
  project     = var.project_id
  role_id     = each.value.id
  title       = each.value.title
  description = each.value.description
  permissions = each.value.permissions
  depends_on  = [google_project_service.this]
}

resource "google_project_iam_member" "this" {
  for_each = {
    for grant in local._project_grants :
    "${grant.role} ${grant.member}" => grant
  }
  project    = var.project_id
  role       = each.value.role
  member     = each.value.member
  depends_on = [google_project_iam_custom_role.this]
}

# The pool of identities comes into being with the project's first cluster.
resource "google_service_account_iam_member" "workload" {
  for_each           = local._has_cluster ? local.workloads : {}
  service_account_id = google_service_account.this[each.key].name
  role               = "roles/iam.workloadIdentityUser"
  member             = "serviceAccount:${local.workload_pool}[${each.value.namespace}/${each.value.service_account}]"
  depends_on         = [google_container_cluster.this]
}

# Links are signed by Google with the console's own identity, which has to be
# allowed to ask for it.
resource "google_service_account_iam_member" "sign" {
  service_account_id = google_service_account.this["console"].name
  role               = "roles/iam.serviceAccountTokenCreator"
  member             = local.members.console
}

# People run the command line as one of these accounts.
resource "google_service_account_iam_member" "operator" {
  for_each = {
    for pair in setproduct(["console", "submitter"], var.access.operators) :
    "${pair[0]} ${pair[1]}" => { account = pair[0], member = pair[1] }
  }
  service_account_id = google_service_account.this[each.value.account].name
  role               = "roles/iam.serviceAccountTokenCreator"
  member             = each.value.member
}
