-- Messages that were given up, by reason, campaign and day. The messages themselves wait on the subscription jobs-dead-review.
SELECT
  DATE(finished_at) AS day,
  reason,
  campaign,
  COUNT(*) AS messages,
  ANY_VALUE(detail) AS example
FROM `${dataset}.generations`
WHERE STARTS_WITH(job_id, 'invalid-')
GROUP BY day, reason, campaign
