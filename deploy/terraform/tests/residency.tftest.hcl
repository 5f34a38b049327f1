# One region places everything, and a model that does not exist there is an
# error before anything is made.
mock_provider "google" {
  source = "./tests/mocks"
}

variables {
  project_id = "mill-test"
  region     = "europe-west4"
}

run "everything_in_the_region" {
  command = plan

  variables {
    region = "us-central1"
    cmek   = { enabled = true }
  }

  assert {
    condition = (
      google_storage_bucket.work.location == "US-CENTRAL1"
      && google_storage_bucket.assets["us-central1"].location == "US-CENTRAL1"
      && google_bigquery_dataset.lineage.location == "us-central1"
      && google_bigquery_dataset.analysts.location == "us-central1"
      && google_bigquery_connection.assets.location == "us-central1"
      && google_artifact_registry_repository.images.location == "us-central1"
      && google_artifact_registry_repository.mirror[0].location == "us-central1"
      && google_container_cluster.this[0].location == "us-central1"
      && google_compute_subnetwork.this[0].region == "us-central1"
      && keys(google_kms_key_ring.this) == ["us-central1"]
      && google_kms_key_ring.this["us-central1"].location == "us-central1"
    )
    error_message = "something is made in another place"
  }
  assert {
    condition = alltrue([
      for t in google_pubsub_topic.this :
      one(t.message_storage_policy).allowed_persistence_regions == toset(["us-central1"])
    ])
    error_message = "messages may rest in another place"
  }
}

run "relaxed" {
  command = plan

  assert {
    condition = {
      for l in jsondecode(output.lanes_file).lanes :
      l.model => l.location... if l.tier == "standard"
      } == {
      for m in jsondecode(file("../../jobs/catalogue.json")).models :
      m.id => [
        for location in ["europe-west4", "global"] : location
        if contains(m.locations, location)
      ]
    }
    error_message = "lanes are ${output.lanes_file}"
  }
  assert {
    condition     = jsondecode(output.lanes_file).prefer == "global"
    error_message = "jobs that may run anywhere crowd the region"
  }
}

run "strict" {
  command = plan

  variables {
    residency = "strict"
  }

  assert {
    condition = toset([
      for l in jsondecode(output.lanes_file).lanes : "${l.model} ${l.location}"
      ]) == toset([
      for m in jsondecode(file("../../jobs/catalogue.json")).models :
      "${m.id} europe-west4" if contains(m.locations, "europe-west4")
    ])
    error_message = "strict residency lets calls leave the region: ${output.lanes_file}"
  }
  assert {
    condition     = length(jsondecode(output.lanes_file).lanes) > 0
    error_message = "nothing can be called"
  }
  assert {
    condition     = jsondecode(output.lanes_file).prefer == "europe-west4"
    error_message = "the preferred location is not the region"
  }
}

run "strict_with_a_model_that_is_global_only" {
  command = plan

  variables {
    residency = "strict"
    models    = ["gemini-3-pro-image"]
  }

  expect_failures = [var.models]
}

run "strict_in_a_region_without_a_model" {
  command = plan

  variables {
    residency = "strict"
    region    = "asia-northeast1"
  }

  expect_failures = [var.residency]
}

run "relaxed_in_a_region_without_a_model" {
  command = plan

  variables {
    region = "asia-northeast1"
  }

  assert {
    condition = toset([
      for l in jsondecode(output.lanes_file).lanes : l.location
    ]) == toset(["global"])
    error_message = "a region is called that serves nothing"
  }
}

run "unknown_model" {
  command = plan

  variables {
    models = ["gemini-3-pro-imgae"]
  }

  expect_failures = [var.models]
}

run "unknown_mode" {
  command = plan

  variables {
    residency = "strictish"
  }

  expect_failures = [var.residency]
}

run "no_region" {
  command = plan

  variables {
    region = "global"
  }

  expect_failures = [var.region]
}

run "multi_region" {
  command = plan

  variables {
    region = "EU"
  }

  expect_failures = [var.region]
}

run "further_regions" {
  command = plan

  variables {
    residency     = "strict"
    extra_regions = { us-central1 = {}, us-east1 = {} }
  }

  assert {
    condition = toset([
      for l in jsondecode(output.lanes_file).lanes : l.location
    ]) == toset(["europe-west4", "us-central1", "us-east1"])
    error_message = "lanes are ${output.lanes_file}"
  }
  assert {
    condition = {
      for region, name in jsondecode(output.lanes_file).buckets : region => name
      } == {
      us-central1 = "mill-test-assets-us-central1"
      us-east1    = "mill-test-assets-us-east1"
    }
    error_message = "the lanes' buckets are ${output.lanes_file}"
  }
  assert {
    condition = alltrue([
      for name in values(output.assets_buckets) : contains(
        output.grants.worker, "roles/storage.objectCreator on bucket ${name}"
        ) && contains(
        output.grants.worker, "roles/storage.legacyBucketReader on bucket ${name}"
        ) && contains(
        output.grants["agent vertex"],
        "roles/storage.objectUser on folder ${name}/straight/",
      )
    ])
    error_message = "a region's bucket can't be used as the first one"
  }
}

run "further_region_without_any_model" {
  command = plan

  variables {
    extra_regions = { asia-northeast1 = {} }
  }

  expect_failures = [var.extra_regions]
}

run "further_region_without_these_models" {
  command = plan

  variables {
    models        = ["gemini-3-pro-image"]
    extra_regions = { us-central1 = {} }
  }

  expect_failures = [google_storage_bucket.assets]
}

run "further_region_is_the_first" {
  command = plan

  variables {
    extra_regions = { europe-west4 = {} }
  }

  expect_failures = [var.extra_regions]
}

run "tiers" {
  command = plan

  variables {
    tiers  = ["flex", "provisioned"]
    models = ["gemini-2.5-flash-image", "gemini-3-pro-image"]
  }

  assert {
    condition = [
      for l in jsondecode(output.lanes_file).lanes :
      "${l.model} ${l.location} ${l.tier}"
      ] == [
      "gemini-2.5-flash-image europe-west4 provisioned",
      "gemini-2.5-flash-image global provisioned",
      "gemini-3-pro-image global provisioned",
      "gemini-3-pro-image global flex",
    ]
    error_message = "lanes are ${output.lanes_file}"
  }
}

run "only_batch" {
  command = plan

  variables {
    tiers = ["batch"]
  }

  expect_failures = [var.tiers]
}
