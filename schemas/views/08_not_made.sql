-- One row per job that ended without an asset: why, in a code and in a sentence, and which row of which file to mend.
SELECT
  finished_at,
  campaign,
  client,
  submission,
  job_id,
  outcome,
  reason,
  detail,
  finish_reason,
  safety_ratings,
  prompt,
  model,
  attempts,
  cost_usd,
  labels,
  source,
  source_file,
  source_row
FROM `${dataset}.generations`
WHERE outcome != 'succeeded'
