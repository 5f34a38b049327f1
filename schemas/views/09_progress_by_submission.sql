-- One row per submission with a receipt: how many of its jobs have ended and how, how many are pending, and what it has cost
-- so far against the estimate. Jobs published without a receipt are not here.
SELECT
  s.submission,
  s.campaign,
  s.client,
  s.submitted_at,
  s.submitter,
  s.jobs + IFNULL(s.ended_before, 0) AS jobs,
  IFNULL(g.ended, 0) AS ended,
  IFNULL(g.succeeded, 0) AS succeeded,
  IFNULL(g.refused, 0) AS refused,
  IFNULL(g.failed, 0) AS failed,
  IFNULL(g.cancelled, 0) AS cancelled,
  s.jobs + IFNULL(s.ended_before, 0) - IFNULL(g.ended, 0) AS pending,
  s.rows_rejected,
  s.estimated_cost_usd,
  IFNULL(g.cost_usd, 0) AS cost_usd,
  g.last_finished_at
FROM `${dataset}.submissions` AS s
LEFT JOIN (
  SELECT
    submission,
    COUNT(*) AS ended,
    COUNTIF(outcome = 'succeeded') AS succeeded,
    COUNTIF(outcome = 'refused') AS refused,
    COUNTIF(outcome = 'failed') AS failed,
    COUNTIF(outcome = 'cancelled') AS cancelled,
    SUM(IFNULL(cost_usd, 0)) AS cost_usd,
    MAX(finished_at) AS last_finished_at
  FROM `${dataset}.jobs_by_submission`
  GROUP BY submission
) AS g
ON g.submission = s.submission
