# Each view of schemas/views is made twice: beside the tables, for whoever may
# read these, and in the analysts' dataset, whose views may read them instead
# of the analysts.
locals {
  _view_sql = {
    for name in fileset("${local._schemas_path}/views", "*.sql") :
    regex("^[0-9]*_?(.+)[.]sql$", name)[0] => split("\n", trimspace(
      file("${local._schemas_path}/views/${name}")
    ))
  }
  views = {
    for name, lines in local._view_sql : name => {
      # The comment on top says what the view answers.
      description = join(" ", [
        for line in lines : trimspace(trimprefix(line, "--"))
        if startswith(line, "--")
      ])
      query = join("\n", [
        for line in lines : line if !startswith(line, "--")
      ])
      reads = toset(flatten(regexall(
        "[$][{]dataset[}][.]([A-Za-z0-9_]+)", join("\n", lines)
      )))
    }
  }
  # BigQuery refuses a view on one that does not exist yet.
  _base_views = toset([
    for name, view in local.views : name
    if length(setsubtract(view.reads, keys(local.tables))) == 0
  ])

  analysts_dataset_id = "${var.dataset_id}_analysts"
  _analysts_views = setsubtract(
    keys(local.views), var.access.hidden_views
  )
  _view_homes = merge(
    {
      for name, view in local.views :
      "${var.dataset_id}.${name}" => {
        dataset = var.dataset_id
        view    = name
        query = replace(
          view.query, "$${dataset}", "${var.project_id}.${var.dataset_id}"
        )
      }
    },
    {
      for name, view in local.views :
      "${local.analysts_dataset_id}.${name}" => {
        dataset = local.analysts_dataset_id
        view    = name
        # Tables are read where they are, other views where this one is.
        query = replace(
          replace(
            view.query,
            "/[$][{]dataset[}][.](${join("|", keys(local.tables))})\\b/",
            "${var.project_id}.${var.dataset_id}.$1"
          ),
          "$${dataset}", "${var.project_id}.${local.analysts_dataset_id}"
        )
      } if contains(local._analysts_views, name)
    },
  )
}

resource "google_bigquery_table" "base_view" {
  for_each = {
    for id, home in local._view_homes : id => home
    if contains(local._base_views, home.view)
  }
  project             = var.project_id
  dataset_id          = each.value.dataset
  table_id            = each.value.view
  description         = local.views[each.value.view].description
  deletion_protection = false

  view {
    query          = each.value.query
    use_legacy_sql = false
  }

  depends_on = [
    google_bigquery_dataset.analysts,
    google_bigquery_table.this,
  ]
}

resource "google_bigquery_table" "view" {
  for_each = {
    for id, home in local._view_homes : id => home
    if !contains(local._base_views, home.view)
  }
  project             = var.project_id
  dataset_id          = each.value.dataset
  table_id            = each.value.view
  description         = local.views[each.value.view].description
  deletion_protection = false

  view {
    query          = each.value.query
    use_legacy_sql = false
  }

  lifecycle {
    precondition {
      condition = length(setsubtract(
        local.views[each.value.view].reads,
        setunion(keys(local.tables), local._base_views),
      )) == 0
      error_message = join(" ", [
        "The view ${each.value.view} reads a view that reads a view.",
        "Give views.tf a third layer, or let it read the tables.",
      ])
    }
    precondition {
      condition = (
        each.value.dataset == var.dataset_id || length(setintersection(
          local.views[each.value.view].reads, var.access.hidden_views
        )) == 0
      )
      error_message = join(" ", [
        "The view ${each.value.view} reads a view that is hidden from",
        "analysts: hide it as well, in access.hidden_views.",
      ])
    }
  }

  depends_on = [google_bigquery_table.base_view]
}
