# What Google Cloud would answer, in the forms that the provider checks.
mock_data "google_project" {
  defaults = {
    number = "123456789012"
  }
}

mock_data "google_storage_project_service_account" {
  defaults = {
    email_address = "service-123456789012@gs-project-accounts.iam.gserviceaccount.com"
  }
}

mock_resource "google_service_account" {
  defaults = {
    name  = "projects/mill-test/serviceAccounts/assetmill@mill-test.iam.gserviceaccount.com"
    email = "assetmill@mill-test.iam.gserviceaccount.com"
  }
}

mock_resource "google_bigquery_connection" {
  defaults = {
    name = "projects/mill-test/locations/europe-west4/connections/assetmill-assets"
    cloud_resource = {
      service_account_id = "bqcx-123456789012-abcd@gcp-sa-bigquery-condel.iam.gserviceaccount.com"
    }
  }
}

mock_resource "google_kms_key_ring" {
  defaults = {
    id = "projects/mill-test/locations/europe-west4/keyRings/assetmill"
  }
}

mock_resource "google_compute_network" {
  defaults = {
    id = "projects/mill-test/global/networks/assetmill"
  }
}

mock_resource "google_compute_subnetwork" {
  defaults = {
    id = "projects/mill-test/regions/europe-west4/subnetworks/assetmill"
  }
}
