-- Jobs with more than one paid image, of which one is kept: wasted_usd bought nothing. It should be empty; docs explain the
-- residual. unanswered counts further calls that may have been paid for.
SELECT
  job_id,
  ANY_VALUE(submission) AS submission,
  ANY_VALUE(campaign) AS campaign,
  COUNTIF(result = 'image') AS images,
  COUNTIF(result = 'unknown') AS unanswered,
  SUM(IFNULL(cost_usd, 0)) AS cost_usd,
  SUM(IF(result = 'image', IFNULL(cost_usd, 0), 0)) - MAX(IF(result = 'image', IFNULL(cost_usd, 0), 0)) AS wasted_usd
FROM `${dataset}.attempts`
GROUP BY job_id
HAVING COUNTIF(result = 'image') > 1
