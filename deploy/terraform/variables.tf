variable "access" {
  description = "Who may do what, as IAM members (`group:...`, `user:...`, `serviceAccount:...`): analysts ask the views; consumers subscribe to results; deployers push images; operators run the command line as submitter or console; producers publish jobs; uploaders drop CSV files. hidden_views are not made for analysts."
  type = object({
    analysts     = optional(set(string), [])
    consumers    = optional(set(string), [])
    deployers    = optional(set(string), [])
    hidden_views = optional(set(string), [])
    operators    = optional(set(string), [])
    producers    = optional(set(string), [])
    uploaders    = optional(set(string), [])
  })
  default  = {}
  nullable = false

  validation {
    condition = alltrue([
      for member in setunion(
        var.access.analysts, var.access.consumers, var.access.deployers,
        var.access.operators, var.access.producers, var.access.uploaders,
        ) : can(regex(
          "^(domain|group|principal(Set)?|serviceAccount|user):.+", member
      ))
    ])
    error_message = "Members are written as group:..., user:..., serviceAccount:..., domain:..., principal:... or principalSet:...; allUsers and allAuthenticatedUsers are not allowed: everything here costs money or holds prompts."
  }
}

variable "alerts" {
  description = "Notification channels (type and labels as in Cloud Monitoring), the age of the oldest waiting job that is worth a message, where the runbook's pages are, and dollars that a campaign may cost in 24 hours and all workers may spend an hour before there is a message (null: no alert)."
  type = object({
    channels = optional(map(object({
      type   = optional(string, "email")
      labels = map(string)
    })), {})
    oldest_job_hours     = optional(number, 2)
    runbook              = optional(string, "https://github.com/assetmill/assetmill/blob/main/docs/runbook")
    usd_per_campaign_day = optional(number)
    usd_per_hour         = optional(number)
  })
  default  = {}
  nullable = false

  validation {
    condition = alltrue([
      for usd in [var.alerts.usd_per_campaign_day, var.alerts.usd_per_hour] :
      usd == null || coalesce(usd, 0) > 0
    ])
    error_message = "alerts.usd_per_campaign_day and alerts.usd_per_hour are above 0, or null for no alert."
  }
  validation {
    condition     = can(regex("^https://.*[^/]$", var.alerts.runbook))
    error_message = "alerts.runbook is an https:// address without a slash at its end."
  }
}

variable "budget" {
  description = "Monthly budget in whole units of the billing account's currency, with the shares of it that are worth a message; null for none."
  type = object({
    amount          = number
    billing_account = string
    currency        = optional(string)
    thresholds      = optional(set(number), [0.5, 0.9, 1])
  })
  default = null
}

variable "cluster" {
  description = "GKE Autopilot cluster for the workers. With create = false, workload_pool (PROJECT.svc.id.goog) of an existing cluster binds its service accounts."
  type = object({
    create = optional(bool, true)
    maintenance = optional(object({
      end_time   = string
      recurrence = string
      start_time = string
    }))
    name            = optional(string, "assetmill")
    namespace       = optional(string, "assetmill")
    release_channel = optional(string, "REGULAR")
    workload_pool   = optional(string)
  })
  default  = {}
  nullable = false
}

variable "cmek" {
  description = "Customer-managed encryption keys: ids of your own by region; for other regions keys are made here."
  type = object({
    enabled       = optional(bool, false)
    keys          = optional(map(string), {})
    rotation_days = optional(number, 90)
  })
  default  = {}
  nullable = false
}

variable "csv_drops" {
  description = "Whether CSV files may be dropped under drops/ of the work bucket, with a message for each on topic and subscription `drops`."
  type        = bool
  default     = false
  nullable    = false
}

variable "dataset_id" {
  description = "BigQuery dataset of lineage, ASSETMILL_DATASET; analysts get another one of that name with the suffix _analysts."
  type        = string
  default     = "assetmill"
  nullable    = false

  validation {
    condition     = can(regex("^[A-Za-z0-9_]{1,1000}$", var.dataset_id))
    error_message = "dataset_id may hold only letters, digits and underscores."
  }
}

variable "extra_regions" {
  description = "Further regions that jobs may be bound to: each gets an assets bucket of its own. Queue, ledger and lineage stay in `region`."
  type        = map(object({}))
  default     = {}
  nullable    = false

  validation {
    condition     = !contains(keys(var.extra_regions), var.region)
    error_message = "extra_regions names ${var.region}, which is the region of everything else."
  }
  validation {
    condition = length(setsubtract(
      keys(var.extra_regions), local.model_regions
    )) == 0
    error_message = join(" ", [
      "No model of jobs/catalogue.json is served in",
      "${join(", ", setsubtract(keys(var.extra_regions), local.model_regions))},",
      "so no job could be bound to it. Regions with a model:",
      "${join(", ", local.model_regions)}.",
    ])
  }
}

variable "labels" {
  description = "Labels on everything that takes labels, for your bill."
  type        = map(string)
  default     = {}
  nullable    = false
}

variable "models" {
  description = "Models that will be called, by their ids in jobs/catalogue.json; empty for all that the residency allows."
  type        = set(string)
  default     = []
  nullable    = false

  validation {
    condition = length(setsubtract(var.models, keys(local.catalogue))) == 0
    error_message = join(" ", [
      "Unknown models:",
      "${join(", ", setsubtract(var.models, keys(local.catalogue)))}.",
      "jobs/catalogue.json knows ${join(", ", keys(local.catalogue))}.",
    ])
  }
  validation {
    condition = var.residency != "strict" || alltrue([
      for model in setintersection(var.models, keys(local.catalogue)) :
      contains(local.catalogue[model], var.region)
    ])
    error_message = join(" ", [
      "Residency is strict, and ${var.region} does not serve",
      join(", ", [
        for model in setintersection(var.models, keys(local.catalogue)) :
        "${model} (served in ${join(", ", local.catalogue[model])})"
        if !contains(local.catalogue[model], var.region)
      ]),
      "- choose another model or region, or residency relaxed, which lets",
      "requests be processed anywhere.",
    ])
  }
  validation {
    condition = var.residency != "relaxed" || alltrue([
      for model in setintersection(var.models, keys(local.catalogue)) :
      length(setintersection(
        local.catalogue[model], setunion(local.regions, ["global"])
      )) > 0
    ])
    error_message = "A model is served neither globally nor in a region of this deployment."
  }
}

variable "network" {
  description = "Ranges of the network that is made for the cluster, and whether it has a NAT to the internet; or ids of an existing network and subnetwork, and the names of its secondary ranges."
  type = object({
    id                  = optional(string)
    nat                 = optional(bool, false)
    nodes_range         = optional(string, "10.64.0.0/22")
    pods_range          = optional(string, "10.65.0.0/16")
    pods_range_name     = optional(string, "pods")
    services_range      = optional(string, "10.64.16.0/20")
    services_range_name = optional(string, "services")
    subnetwork_id       = optional(string)
  })
  default  = {}
  nullable = false
}

variable "org_policies" {
  description = "Whether to set organization policies on the project: no keys of service accounts, no public buckets, resources in these regions only."
  type        = bool
  default     = false
  nullable    = false
}

variable "perimeter" {
  description = "VPC Service Controls perimeter around the project, in a dry run until enforced; null for none. access_policy is its number, ingress lets identities in from outside."
  type = object({
    access_levels = optional(set(string), [])
    access_policy = string
    enforced      = optional(bool, false)
    ingress = optional(map(object({
      access_levels = optional(set(string), ["*"])
      identities    = set(string)
      services      = optional(set(string), ["bigquery", "pubsub", "storage"])
    })), {})
    name            = optional(string, "assetmill")
    project_numbers = optional(set(string), [])
    services = optional(set(string), [
      "aiplatform", "artifactregistry", "bigquery", "cloudkms", "container",
      "iamcredentials", "logging", "monitoring", "pubsub", "storage",
    ])
  })
  default = null
}

variable "prefix" {
  description = "Prefix of the buckets' names, which are unique in the world; the project's id when null."
  type        = string
  default     = null

  validation {
    condition = (
      var.prefix == null || can(regex("^[a-z0-9][a-z0-9-]{1,35}$", var.prefix))
    )
    error_message = "prefix may hold a-z, 0-9 and -, at most 36 of them."
  }
}

variable "project_id" {
  description = "Project that everything is made in. One deployment per project: the names of topics are fixed."
  type        = string
  nullable    = false

  validation {
    condition = can(regex(
      "^([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project_id
    ))
    error_message = "project_id is the id of a project, such as my-project-123, not its name or number."
  }
}

variable "protect" {
  description = "Whether Terraform refuses to delete what can't be made again: buckets, tables, topics, subscriptions, keys, the cluster."
  type        = bool
  default     = true
  nullable    = false
}

variable "queue" {
  description = "Pub/Sub: days that an unfinished message is kept, days that any message can be replayed, deliveries after which Pub/Sub gives up (5 to 100), pauses between deliveries, whether topics hold publishers to the schemas, and whether messages may be handled only in the region."
  type = object({
    delivery_attempts  = optional(number, 100)
    enforce_in_transit = optional(bool, false)
    keep_days          = optional(number, 31)
    maximum_backoff    = optional(string, "600s")
    minimum_backoff    = optional(string, "1s")
    replay_days        = optional(number, 7)
    schemas            = optional(bool, true)
  })
  default  = {}
  nullable = false

  validation {
    condition = (
      var.queue.delivery_attempts >= 5 && var.queue.delivery_attempts <= 100
    )
    error_message = "queue.delivery_attempts is 5 to 100."
  }
  validation {
    condition = alltrue([
      for days in [var.queue.keep_days, var.queue.replay_days] :
      days >= 1 && days <= 31
    ])
    error_message = "Pub/Sub keeps messages for 1 to 31 days."
  }
}

variable "reference_buckets" {
  description = "Existing buckets with reference images, which Vertex, the worker and the submitter may read."
  type        = set(string)
  default     = []
  nullable    = false
}

variable "region" {
  description = "Region of everything: data at rest, the cluster, and in strict residency also the models."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]+$", var.region))
    error_message = "region is one region such as europe-west4 or us-central1; neither global nor a multi-region will do."
  }
}

variable "residency" {
  description = "`strict`: models are called in the region only. `relaxed`: data rests in the region, and requests may be processed anywhere (`global`), where most image models are."
  type        = string
  default     = "relaxed"
  nullable    = false

  validation {
    condition     = contains(["relaxed", "strict"], var.residency)
    error_message = "residency is strict or relaxed."
  }
  validation {
    condition = (
      var.residency != "strict" || contains(local.model_regions, var.region)
    )
    error_message = join(" ", [
      "Residency is strict, and no model of jobs/catalogue.json is served in",
      "${var.region}. Regions with a model:",
      "${join(", ", local.model_regions)}. Or choose residency relaxed, which",
      "lets requests be processed anywhere.",
    ])
  }
}

variable "restricted_vip" {
  description = "Whether the network reaches Google's APIs only as restricted.googleapis.com. Needs the network that is made here, or network.id."
  type        = bool
  default     = false
  nullable    = false

  validation {
    condition = (
      !var.restricted_vip || var.cluster.create || var.network.id != null
    )
    error_message = "restricted_vip needs a network: let the cluster be made here, or set network.id."
  }
}

variable "retention" {
  description = "Days until archived assets move to the ARCHIVE class, and until files are deleted: those of batches, dropped CSV files, what models wrote themselves, rows of lineage (null: never), the ledger (null: never). undelete_days is how long a deleted asset can be restored (0, or 7 to 90)."
  type = object({
    archive_after_days = optional(number, 30)
    batches_days       = optional(number, 30)
    drops_days         = optional(number, 90)
    ledger_days        = optional(number)
    lineage_days       = optional(number)
    straight_days      = optional(number, 3)
    undelete_days      = optional(number, 7)
  })
  default  = {}
  nullable = false

  validation {
    condition = (
      var.retention.ledger_days == null
      || coalesce(var.retention.ledger_days, 0) >= local.record_days
    )
    error_message = "retention.ledger_days is at least ${local.record_days}: a job whose record is gone before its last message is paid for again."
  }
  validation {
    condition = (
      var.retention.straight_days >= 1 && var.retention.batches_days >= 7
    )
    error_message = "retention.straight_days is at least 1 and batches_days at least 7: jobs and batches that are under way still need their files."
  }
  validation {
    condition = (
      var.retention.undelete_days == 0 || (
        var.retention.undelete_days >= 7 && var.retention.undelete_days <= 90
      )
    )
    error_message = "retention.undelete_days is 0, or 7 to 90."
  }
}

variable "tiers" {
  description = "Tiers that models are called in: standard, flex (half the price, slow, at global only), provisioned (bought in advance), batch."
  type        = set(string)
  default     = ["batch", "standard"]
  nullable    = false

  validation {
    condition = length(setsubtract(
      var.tiers, ["batch", "flex", "provisioned", "standard"]
    )) == 0
    error_message = "tiers may be batch, flex, provisioned and standard."
  }
  validation {
    condition = length(setintersection(
      var.tiers, ["flex", "provisioned", "standard"]
    )) > 0
    error_message = "tiers needs one that takes online calls: flex, provisioned or standard."
  }
}
