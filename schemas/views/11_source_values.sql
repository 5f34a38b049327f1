-- One row per job and column of the producer's that assetmill has no use for, such as a SKU: join your own tables on key and
-- value.
SELECT
  g.job_id,
  g.submission,
  g.campaign,
  g.outcome,
  g.asset_uri,
  s.key,
  s.value
FROM `${dataset}.generations` AS g, UNNEST(g.source) AS s
