-- One row per asset: what was made, from which prompt, by which model, at what cost, and where it is.
SELECT
  finished_at,
  campaign,
  client,
  submission,
  job_id,
  asset_uri,
  prompt,
  system,
  `references`,
  model,
  model_version,
  size,
  aspect_ratio,
  seed,
  variant,
  asset_width,
  asset_height,
  asset_mime_type,
  asset_bytes,
  cost_usd,
  retention,
  labels,
  source,
  source_file,
  source_row
FROM `${dataset}.generations`
WHERE outcome = 'succeeded'
