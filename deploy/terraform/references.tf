# Reference images lie in buckets of others, which exist already. Vertex reads
# them itself; submit looks whether they are there.
locals {
  _reference_readers = {
    submitter = local.members.submitter
    vertex    = local.agents.vertex
    worker    = local.members.worker
  }
}

resource "google_storage_bucket_iam_member" "references" {
  for_each = {
    for pair in setproduct(
      var.reference_buckets, keys(local._reference_readers)
    ) : "${pair[0]} ${pair[1]}" => { bucket = pair[0], reader = pair[1] }
  }
  bucket = each.value.bucket
  role   = "roles/storage.objectViewer"
  member = local._reference_readers[each.value.reader]
}
