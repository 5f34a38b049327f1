# Container images: assetmill's own, and those of KEDA through a mirror, so
# that nodes need no way to the internet.
resource "google_artifact_registry_repository" "images" {
  project       = var.project_id
  repository_id = "assetmill"
  location      = var.region
  format        = "DOCKER"
  description   = "Images of assetmill"
  kms_key_name  = local.kms_keys[var.region]

  # A version that runs somewhere never becomes another one.
  docker_config {
    immutable_tags = true
  }

  depends_on = [
    google_kms_crypto_key_iam_member.this,
    google_project_service.this,
  ]
}

resource "google_artifact_registry_repository" "mirror" {
  count         = var.cluster.create ? 1 : 0
  project       = var.project_id
  repository_id = "assetmill-mirror"
  location      = var.region
  format        = "DOCKER"
  mode          = "REMOTE_REPOSITORY"
  description   = "Mirror of ghcr.io, where KEDA's images are"
  kms_key_name  = local.kms_keys[var.region]

  remote_repository_config {
    docker_repository {
      custom_repository {
        uri = "https://ghcr.io"
      }
    }
  }

  depends_on = [
    google_kms_crypto_key_iam_member.this,
    google_project_service.this,
  ]
}

locals {
  _registry_grants = concat(
    var.cluster.create ? [
      for repository in ["assetmill", "assetmill-mirror"] : {
        repository = repository
        role       = "roles/artifactregistry.reader"
        member     = local.members.nodes
      }
    ] : [],
    [
      for member in var.access.deployers : {
        repository = "assetmill"
        role       = "roles/artifactregistry.writer"
        member     = member
      }
    ],
  )
}

resource "google_artifact_registry_repository_iam_member" "this" {
  for_each = {
    for grant in local._registry_grants :
    "${grant.repository} ${grant.role} ${grant.member}" => grant
  }
  project    = var.project_id
  location   = var.region
  repository = each.value.repository
  role       = each.value.role
  member     = each.value.member
  depends_on = [
    google_artifact_registry_repository.images,
    google_artifact_registry_repository.mirror,
  ]
}
