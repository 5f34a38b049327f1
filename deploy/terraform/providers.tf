# No backend: add a file backend.tf of your own, or keep the state on disk.
terraform {
  required_version = ">= 1.11"

  required_providers {
    google = {
      source  = "hashicorp/google"
      version = "~> 7.45"
    }
  }
}

provider "google" {
  project = var.project_id
  region  = var.region

  # Budgets and organization policies need a project to count calls on when
  # a person applies with credentials of their own.
  billing_project       = var.project_id
  user_project_override = true

  default_labels = merge({ app = "assetmill" }, var.labels)
}
