# Switches for those who need more: keys of their own, a perimeter, no way out
# but to Google, policies. All are off unless asked for.
mock_provider "google" {
  source = "./tests/mocks"
}

variables {
  project_id = "mill-test"
  region     = "europe-west4"
}

run "defaults" {
  command = plan

  assert {
    condition = (
      length(google_kms_crypto_key.this) == 0
      && length(google_kms_crypto_key_iam_member.this) == 0
      && length(google_storage_bucket.work.encryption) == 0
      && length(google_bigquery_dataset.lineage.default_encryption_configuration) == 0
      && length(google_container_cluster.this[0].database_encryption) == 0
    )
    error_message = "keys are made although nobody asked for them"
  }
  assert {
    condition = (
      length(google_access_context_manager_service_perimeter.this) == 0
      && length(google_dns_managed_zone.restricted) == 0
      && length(google_compute_route.restricted) == 0
      && length(google_org_policy_policy.enforced) == 0
      && length(google_org_policy_policy.locations) == 0
      && length(google_billing_budget.this) == 0
    )
    error_message = "something is on that was not asked for"
  }
  assert {
    condition = length([
      for api in ["accesscontextmanager", "billingbudgets", "cloudkms", "dns", "orgpolicy"] :
      api if contains(keys(google_project_service.this), api)
    ]) == 0
    error_message = "an API is enabled that nothing needs"
  }
  assert {
    condition = toset(values(google_project_service.this)[*].service) == toset([
      "aiplatform.googleapis.com", "artifactregistry.googleapis.com",
      "bigquery.googleapis.com", "bigqueryconnection.googleapis.com",
      "bigquerystorage.googleapis.com", "cloudresourcemanager.googleapis.com",
      "cloudtrace.googleapis.com", "compute.googleapis.com",
      "container.googleapis.com", "iam.googleapis.com",
      "iamcredentials.googleapis.com", "logging.googleapis.com",
      "monitoring.googleapis.com", "pubsub.googleapis.com",
      "serviceusage.googleapis.com", "storage.googleapis.com",
    ])
    error_message = "APIs are ${join(", ", keys(google_project_service.this))}"
  }
  assert {
    condition = alltrue([
      for s in google_project_service.this : !s.disable_on_destroy
    ])
    error_message = "destroying this deployment disables APIs for others"
  }
}

run "keys" {
  command = plan

  variables {
    extra_regions = { us-central1 = {} }
    cmek          = { enabled = true }
  }

  assert {
    condition = {
      for region, b in google_storage_bucket.assets :
      region => one(b.encryption).default_kms_key_name
      } == {
      europe-west4 = "projects/mill-test/locations/europe-west4/keyRings/assetmill/cryptoKeys/assetmill"
      us-central1  = "projects/mill-test/locations/us-central1/keyRings/assetmill/cryptoKeys/assetmill"
    }
    error_message = "a bucket is not encrypted with its region's key"
  }
  assert {
    condition = toset(concat(
      [for t in google_pubsub_topic.this : t.kms_key_name],
      [
        one(google_storage_bucket.work.encryption).default_kms_key_name,
        one(google_bigquery_dataset.lineage.default_encryption_configuration).kms_key_name,
        one(google_bigquery_dataset.analysts.default_encryption_configuration).kms_key_name,
        one(google_container_cluster.this[0].database_encryption).key_name,
        google_artifact_registry_repository.images.kms_key_name,
        google_artifact_registry_repository.mirror[0].kms_key_name,
      ],
    )) == toset(["projects/mill-test/locations/europe-west4/keyRings/assetmill/cryptoKeys/assetmill"])
    error_message = "something is not encrypted with the key"
  }
  assert {
    condition = toset(keys(google_kms_crypto_key_iam_member.this)) == toset([
      "europe-west4 artifactregistry", "europe-west4 bigquery",
      "europe-west4 container", "europe-west4 pubsub",
      "europe-west4 storage", "us-central1 storage",
    ])
    error_message = "the key is used by ${join(", ", keys(google_kms_crypto_key_iam_member.this))}"
  }
  assert {
    condition = alltrue([
      for g in google_kms_crypto_key_iam_member.this :
      g.role == "roles/cloudkms.cryptoKeyEncrypterDecrypter"
    ])
    error_message = "somebody may do more with the key than use it"
  }
  assert {
    condition = alltrue([
      for k in google_kms_crypto_key.this :
      k.deletion_policy == "PREVENT" && k.rotation_period == "7776000s"
    ])
    error_message = "a key can be destroyed, or never changes"
  }
}

run "keys_of_your_own" {
  command = plan

  variables {
    cmek = {
      enabled = true
      keys = {
        europe-west4 = "projects/keys/locations/europe-west4/keyRings/corp/cryptoKeys/mill"
      }
    }
  }

  assert {
    condition = (
      length(google_kms_crypto_key.this) == 0
      && one(google_storage_bucket.work.encryption).default_kms_key_name == "projects/keys/locations/europe-west4/keyRings/corp/cryptoKeys/mill"
      && google_kms_crypto_key_iam_member.this["europe-west4 storage"].crypto_key_id == "projects/keys/locations/europe-west4/keyRings/corp/cryptoKeys/mill"
    )
    error_message = "a key of one's own is not used"
  }
}

run "perimeter_in_a_dry_run" {
  command = plan

  variables {
    perimeter = {
      access_policy = "4711"
      ingress = {
        analysts = { identities = ["group:analysts@example.com"], services = ["bigquery"] }
      }
    }
  }

  assert {
    condition = (
      google_access_context_manager_service_perimeter.this[0].use_explicit_dry_run_spec
      && length(google_access_context_manager_service_perimeter.this[0].spec) == 1
      && length(google_access_context_manager_service_perimeter.this[0].status) == 0
    )
    error_message = "a new perimeter refuses at once"
  }
  assert {
    condition = (
      one(google_access_context_manager_service_perimeter.this[0].spec).resources == toset(["projects/123456789012"])
      && length(setsubtract(
        [
          "aiplatform.googleapis.com", "bigquery.googleapis.com",
          "pubsub.googleapis.com", "storage.googleapis.com",
        ],
        one(google_access_context_manager_service_perimeter.this[0].spec).restricted_services,
      )) == 0
    )
    error_message = "the perimeter leaves out the project, or a service with its data"
  }
  assert {
    condition = (
      one(one(one(google_access_context_manager_service_perimeter.this[0].spec).ingress_policies).ingress_from).identities == toset(["group:analysts@example.com"])
      && one(one(one(one(google_access_context_manager_service_perimeter.this[0].spec).ingress_policies).ingress_to).operations).service_name == "bigquery.googleapis.com"
    )
    error_message = "analysts are shut out, or let in to more than BigQuery"
  }
}

run "perimeter_enforced" {
  command = plan

  variables {
    perimeter = { access_policy = "4711", enforced = true }
  }

  assert {
    condition = (
      length(google_access_context_manager_service_perimeter.this[0].status) == 1
      && one(google_access_context_manager_service_perimeter.this[0].status).restricted_services == one(google_access_context_manager_service_perimeter.this[0].spec).restricted_services
      && one(google_access_context_manager_service_perimeter.this[0].status).resources == one(google_access_context_manager_service_perimeter.this[0].spec).resources
    )
    error_message = "what is enforced is not what was tried"
  }
}

run "restricted_vip" {
  command = plan

  variables {
    restricted_vip = true
  }

  assert {
    condition = {
      for domain, z in google_dns_managed_zone.restricted :
      domain => "${z.dns_name} ${z.visibility}"
      } == {
      "googleapis.com" = "googleapis.com. private"
      "pkg.dev"        = "pkg.dev. private"
    }
    error_message = "zones are not private, or one is missing"
  }
  assert {
    condition = (
      alltrue([
        for r in google_dns_record_set.address : toset(r.rrdatas) == toset([
          "199.36.153.4", "199.36.153.5", "199.36.153.6", "199.36.153.7",
        ])
      ])
      && google_dns_record_set.address["googleapis.com"].name == "restricted.googleapis.com."
      && google_dns_record_set.alias["googleapis.com"].name == "*.googleapis.com."
      && google_dns_record_set.alias["googleapis.com"].rrdatas == tolist(["restricted.googleapis.com."])
    )
    error_message = "names of APIs don't lead to the restricted VIP"
  }
  assert {
    condition = (
      google_compute_network.this[0].delete_default_routes_on_create
      && google_compute_route.restricted[0].dest_range == "199.36.153.4/30"
    )
    error_message = "the network has another way out than to Google"
  }
}

run "restricted_vip_without_a_network" {
  command = plan

  variables {
    restricted_vip = true
    cluster        = { create = false }
  }

  expect_failures = [var.restricted_vip]
}

run "policies" {
  command = plan

  variables {
    org_policies  = true
    extra_regions = { us-central1 = {} }
  }

  assert {
    condition = toset(keys(google_org_policy_policy.enforced)) == toset([
      "iam.automaticIamGrantsForDefaultServiceAccounts",
      "iam.disableServiceAccountKeyCreation",
      "iam.disableServiceAccountKeyUpload",
      "storage.publicAccessPrevention",
      "storage.secureHttpTransport",
      "storage.uniformBucketLevelAccess",
    ])
    error_message = "policies are ${join(", ", keys(google_org_policy_policy.enforced))}"
  }
  assert {
    condition = alltrue([
      for p in google_org_policy_policy.enforced :
      one(one(p.spec).rules).enforce == "TRUE"
    ])
    error_message = "a policy is not enforced"
  }
  assert {
    condition = one(one(one(google_org_policy_policy.locations[0].spec).rules).values).allowed_values == tolist([
      "in:europe-west4-locations", "in:us-central1-locations",
    ])
    error_message = "resources may be made in other regions"
  }
}

run "wrong_project" {
  command = plan

  variables {
    project_id = "123456789012"
  }

  expect_failures = [var.project_id]
}
