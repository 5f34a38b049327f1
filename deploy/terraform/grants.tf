# Every grant of this deployment, read off the resources themselves: for
# whoever has to approve it, and for the tests. Every resource that grants a
# role has its line here.
locals {
  _grants = concat(
    [
      for g in google_project_iam_member.this :
      { member = g.member, grant = "${g.role} on project" }
    ],
    [
      for g in google_pubsub_topic_iam_member.this :
      { member = g.member, grant = "${g.role} on topic ${g.topic}" }
    ],
    [
      for g in google_pubsub_subscription_iam_member.this : {
        member = g.member
        grant  = "${g.role} on subscription ${g.subscription}"
      }
    ],
    [
      for g in concat(
        values(google_storage_bucket_iam_member.assets),
        values(google_storage_bucket_iam_member.references),
        values(google_storage_bucket_iam_member.work),
      ) : { member = g.member, grant = "${g.role} on bucket ${g.bucket}" }
    ],
    [
      for g in concat(
        values(google_storage_managed_folder_iam_member.straight),
        values(google_storage_managed_folder_iam_member.work),
        ) : {
        member = g.member
        grant  = "${g.role} on folder ${g.bucket}/${g.managed_folder}"
      }
    ],
    [
      for g in google_bigquery_dataset_access.lineage : {
        member = "serviceAccount:${g.user_by_email}"
        grant  = "${g.role} on dataset ${g.dataset_id}"
      }
    ],
    [
      for member, g in google_bigquery_dataset_access.analysts :
      { member = member, grant = "${g.role} on dataset ${g.dataset_id}" }
    ],
    [{
      member = "views of ${google_bigquery_dataset.analysts.dataset_id}"
      grant = join(" ", [
        "read on dataset",
        google_bigquery_dataset_access.authorized_views.dataset_id,
      ])
    }],
    [
      for g in google_bigquery_table_iam_member.append :
      { member = g.member, grant = "${g.role} on table ${g.table_id}" }
    ],
    [{
      # The connection's account has its name only once it exists.
      member = "connection ${google_bigquery_connection.assets.connection_id}"
      grant = join(" ", [
        google_storage_bucket_iam_member.object_table.role,
        "on bucket",
        google_storage_bucket_iam_member.object_table.bucket,
      ])
    }],
    [
      for g in google_artifact_registry_repository_iam_member.this :
      { member = g.member, grant = "${g.role} on registry ${g.repository}" }
    ],
    [
      for key, g in google_kms_crypto_key_iam_member.this : {
        member = g.member
        grant  = "${g.role} on key ${g.crypto_key_id}"
      }
    ],
    [
      for account, g in google_service_account_iam_member.workload : {
        member = g.member
        grant  = "${g.role} on account ${account}"
      }
    ],
    [{
      member = google_service_account_iam_member.sign.member
      grant = join(" ", [
        google_service_account_iam_member.sign.role, "on account console",
      ])
    }],
    [
      for key, g in google_service_account_iam_member.operator : {
        member = g.member
        grant  = "${g.role} on account ${split(" ", key)[0]}"
      }
    ],
  )

  # By a short name where it is one of ours or of Google's, else by member.
  _names = merge(
    { for name, member in local.members : member => name },
    { for name, member in local.agents : member => "agent ${name}" },
  )
  grants = {
    for member, grants in {
      for g in local._grants : g.member => g.grant...
    } : lookup(local._names, member, member) => sort(grants)
  }
}
