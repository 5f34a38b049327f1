# Which models may be called, and where. The catalogue of the worker is the
# only list of models and of the locations that serve them.
locals {
  _catalogue = jsondecode(file("${path.module}/../../jobs/catalogue.json"))

  # Locations and tiers by model.
  catalogue = { for m in local._catalogue.models : m.id => m.locations }
  _tiers    = { for m in local._catalogue.models : m.id => m.tiers }

  # The regions that serve some model; global is no region.
  model_regions = sort(setsubtract(
    distinct(flatten(values(local.catalogue))), ["global"]
  ))

  # Regions that data may rest in, and the extra ones among them.
  regions = toset(concat([var.region], keys(var.extra_regions)))

  # Locations that may be called. In strict mode these are the regions
  # alone; `global` may process a request anywhere.
  _locations = setunion(
    local.regions, var.residency == "strict" ? [] : ["global"]
  )

  models = toset(
    length(var.models) > 0 ? var.models : [
      for model, served in local.catalogue : model
      if length(setintersection(served, local._locations)) > 0
    ]
  )

  # Where each model may be called, the deployment's own region first,
  # `global` last.
  model_locations = {
    for model in local.models : model => [
      for location in concat(
        [var.region], sort(keys(var.extra_regions)), ["global"]
      ) : location
      if contains(local._locations, location)
      && contains(lookup(local.catalogue, model, []), location)
    ]
  }

  # The worker's file of lanes: without one it would call every location of
  # the catalogue.
  lanes = {
    prefer = anytrue([
      for locations in values(local.model_locations) :
      contains(locations, "global")
    ]) ? "global" : var.region
    buckets = {
      for region in keys(var.extra_regions) :
      region => local.assets_buckets[region]
    }
    lanes = flatten([
      for model, locations in local.model_locations : [
        for location in locations : [
          for tier in ["provisioned", "flex", "standard", "batch"] :
          { model = model, location = location, tier = tier }
          if contains(var.tiers, tier)
          && contains(local._tiers[model], tier)
          # Vertex offers flex at global only.
          && (tier != "flex" || location == "global")
        ]
      ]
    ])
  }
}
