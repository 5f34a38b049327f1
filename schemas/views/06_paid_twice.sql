-- Jobs with more than one paid answer: money spent that bought nothing. It should be empty; docs explain the residual.
SELECT
  job_id,
  ANY_VALUE(submission) AS submission,
  ANY_VALUE(campaign) AS campaign,
  COUNTIF(result = 'image') AS images,
  SUM(cost_usd) AS cost_usd
FROM `${dataset}.attempts`
GROUP BY job_id
HAVING COUNTIF(result = 'image') > 1
