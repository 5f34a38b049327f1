-- What became of the jobs that batches served, counted from the jobs' own rows: it must agree with the view batches.
SELECT
  batch_id,
  ANY_VALUE(model) AS model,
  ANY_VALUE(location) AS location,
  COUNT(*) AS jobs,
  COUNTIF(outcome = 'succeeded') AS succeeded,
  COUNTIF(outcome = 'refused') AS refused,
  COUNTIF(outcome = 'failed') AS failed,
  SUM(IFNULL(cost_usd, 0)) AS cost_usd,
  MIN(finished_at) AS first_finished_at,
  MAX(finished_at) AS last_finished_at
FROM `${dataset}.generations`
WHERE batch_id IS NOT NULL
GROUP BY batch_id
