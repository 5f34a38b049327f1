variable "channels" {
  description = "Ids of the notification channels that alerts go to."
  type        = list(string)
  default     = []
  nullable    = false
}

variable "project_id" {
  description = "Project whose workers are watched."
  type        = string
  nullable    = false
}

variable "runbook" {
  description = "Where the pages of docs/runbook are, for the links in alerts."
  type        = string
  default     = "https://github.com/assetmill/assetmill/blob/main/docs/runbook"
  nullable    = false
}

variable "usd_per_campaign_day" {
  description = "Dollars that a campaign may cost in 24 hours before there is an alert; null for none."
  type        = number
  default     = null
}

variable "usd_per_hour" {
  description = "Dollars an hour that all workers may spend before there is an alert; null for none."
  type        = number
  default     = null
}
