-- Jobs, cost and calls per submission, outcome and reason: what was made, what was refused, and why the rest failed.
SELECT
  submission,
  outcome,
  reason,
  COUNT(*) AS jobs,
  SUM(IFNULL(cost_usd, 0)) AS cost_usd,
  SUM(IFNULL(attempts, 0)) AS attempts,
  MIN(finished_at) AS first_finished_at,
  MAX(finished_at) AS last_finished_at
FROM `${dataset}.jobs_by_submission`
GROUP BY submission, outcome, reason
