# BigQuery: tables and views are those of schemas/, and analysts see views.
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
    condition = {
      for name, t in google_bigquery_table.this : name => {
        by      = "${one(t.time_partitioning).type} ${one(t.time_partitioning).field}"
        cluster = t.clustering
      }
      } == {
      for t in jsondecode(file("../../schemas/bigquery/tables.json")) :
      t.name => { by = "DAY ${t.partition_by}", cluster = tolist(t.cluster_by) }
    }
    error_message = "tables are not partitioned and clustered as schemas/ says"
  }
  assert {
    condition = (
      one(google_bigquery_table.this["generations_raw"].time_partitioning).field == "finished_at"
      && google_bigquery_table.this["generations_raw"].clustering[0] == "campaign"
    )
    error_message = "questions by day and campaign read the whole table"
  }
  assert {
    condition = alltrue([
      for name, t in google_bigquery_table.this :
      jsondecode(t.schema) == jsondecode(file("../../schemas/bigquery/${name}.json"))
      && length(t.description) > 0
    ])
    error_message = "a table has other columns than schemas/ says"
  }
  assert {
    condition = alltrue([
      for t in google_bigquery_table.this : t.deletion_protection
      && coalesce(t.require_partition_filter, false) == false
    ])
    error_message = "rows are lost, or the views that read all days fail"
  }
  assert {
    condition = (
      google_bigquery_dataset.lineage.dataset_id == "assetmill"
      && google_bigquery_dataset.lineage.deletion_policy == "PREVENT"
      && !google_bigquery_dataset.lineage.delete_contents_on_destroy
      && !google_bigquery_dataset.analysts.delete_contents_on_destroy
    )
    error_message = "the dataset has another name, or goes with its tables"
  }
  assert {
    condition = alltrue([
      for d in [
        google_bigquery_dataset.lineage, google_bigquery_dataset.analysts
      ] : [for a in d.access : a.special_group] == ["projectOwners"]
    ])
    error_message = "everybody who may view the project reads prompts"
  }
  # Of every SQL file, in both datasets.
  assert {
    condition = toset([
      for t in concat(
        values(google_bigquery_table.base_view),
        values(google_bigquery_table.view),
      ) : "${t.dataset_id} ${t.table_id}"
      ]) == toset(flatten([
        for name in fileset("../../schemas/views", "*.sql") : [
          for dataset in ["assetmill", "assetmill_analysts"] :
          "${dataset} ${regex("^[0-9]+_(.+)[.]sql$", name)[0]}"
        ]
    ]))
    error_message = "a view is missing, or made of nothing"
  }
  assert {
    condition = alltrue([
      for t in concat(
        values(google_bigquery_table.base_view),
        values(google_bigquery_table.view),
        ) : (
        !one(t.view).use_legacy_sql && length(t.description) > 0
        && startswith(one(t.view).query, "SELECT")
        && length(regexall("[$][{]", one(t.view).query)) == 0
      )
    ])
    error_message = "a view's query or description is not what its file says"
  }
  assert {
    condition = alltrue([
      for t in concat(
        values(google_bigquery_table.base_view),
        values(google_bigquery_table.view),
        ) : alltrue([
          for name in regexall("`([^`]+[.][^`]+)`", one(t.view).query) :
          startswith(name[0], (
            endswith(name[0], "_raw")
            ? "mill-test.assetmill." : "mill-test.${t.dataset_id}."
          ))
      ])
    ])
    error_message = "a view reads something in the wrong dataset"
  }
  assert {
    condition = (
      one(google_bigquery_table.base_view["assetmill_analysts.generations"].view).query
      == one(google_bigquery_table.base_view["assetmill.generations"].view).query
    )
    error_message = "analysts get other generations than others"
  }
  assert {
    condition = (
      google_bigquery_dataset_access.authorized_views.dataset_id == "assetmill"
      && one(one(google_bigquery_dataset_access.authorized_views.dataset).dataset).dataset_id == "assetmill_analysts"
      && one(google_bigquery_dataset_access.authorized_views.dataset).target_types == tolist(["VIEWS"])
    )
    error_message = "the analysts' views may not read the tables"
  }
  assert {
    condition = (
      google_bigquery_table.asset_objects.dataset_id == "assetmill_analysts"
      && one(google_bigquery_table.asset_objects.external_data_configuration).object_metadata == "SIMPLE"
      && toset(one(google_bigquery_table.asset_objects.external_data_configuration).source_uris) == toset([
        "gs://mill-test-assets/30d/*",
        "gs://mill-test-assets/365d/*",
        "gs://mill-test-assets/90d/*",
        "gs://mill-test-assets/archive/*",
        "gs://mill-test-assets/keep/*",
      ])
    )
    error_message = "the table of objects shows other objects than assets"
  }
}

run "rows_with_a_term" {
  command = plan

  variables {
    retention = { lineage_days = 730 }
  }

  assert {
    condition = alltrue([
      for t in google_bigquery_table.this :
      one(t.time_partitioning).expiration_ms == 730 * 86400000
    ])
    error_message = "lineage_days has no effect"
  }
}

run "hidden_views" {
  command = plan

  variables {
    access = { hidden_views = ["assets", "not_made", "source_values"] }
  }

  assert {
    condition = (
      !contains(keys(google_bigquery_table.view), "assetmill_analysts.assets")
      && contains(keys(google_bigquery_table.view), "assetmill.assets")
      && contains(keys(google_bigquery_table.base_view), "assetmill_analysts.generations")
    )
    error_message = "hidden_views hides too much or too little"
  }
}

run "hidden_beneath_another_view" {
  command = plan

  variables {
    access = { hidden_views = ["generations"] }
  }

  expect_failures = [google_bigquery_table.view]
}

