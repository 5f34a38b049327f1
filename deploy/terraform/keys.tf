# Customer-managed keys: one per region, yours or made here. A key ring can't
# be deleted, and data whose key is destroyed is lost.
locals {
  _made_key_regions = toset([
    for region in local.regions : region
    if var.cmek.enabled && !contains(keys(var.cmek.keys), region)
  ])

  _made_keys = {
    for region, key in google_kms_crypto_key.this :
    region => join("/", [
      "projects", var.project_id, "locations", region,
      "keyRings", google_kms_key_ring.this[region].name,
      "cryptoKeys", key.name,
    ])
  }

  # Ids by region; null where Google's own keys are used.
  kms_keys = {
    for region in local.regions : region => (
      var.cmek.enabled
      ? lookup(merge(local._made_keys, var.cmek.keys), region, null) : null
    )
  }

  # Elsewhere there are only buckets.
  _key_users = {
    for region in local.regions : region => (
      region == var.region
      ? concat(
        ["artifactregistry", "bigquery", "pubsub", "storage"],
        var.cluster.create ? ["container"] : [],
      )
      : ["storage"]
    )
  }
  _key_grants = flatten([
    for region in local.regions : [
      for agent in local._key_users[region] :
      { region = region, agent = agent }
    ] if var.cmek.enabled
  ])
}

resource "google_kms_key_ring" "this" {
  for_each   = local._made_key_regions
  project    = var.project_id
  name       = "assetmill"
  location   = each.key
  depends_on = [google_project_service.this]
}

resource "google_kms_crypto_key" "this" {
  for_each        = local._made_key_regions
  name            = "assetmill"
  key_ring        = google_kms_key_ring.this[each.key].id
  purpose         = "ENCRYPT_DECRYPT"
  rotation_period = "${var.cmek.rotation_days * 86400}s"
  deletion_policy = local.deletion_policy
}

resource "google_kms_crypto_key_iam_member" "this" {
  for_each = {
    for grant in local._key_grants :
    "${grant.region} ${grant.agent}" => grant
  }
  crypto_key_id = local.kms_keys[each.value.region]
  role          = "roles/cloudkms.cryptoKeyEncrypterDecrypter"
  member        = local.agents[each.value.agent]
  depends_on = [
    data.google_bigquery_default_service_account.this,
    data.google_storage_project_service_account.this,
  ]
}
