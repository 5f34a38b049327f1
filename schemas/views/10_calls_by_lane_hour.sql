-- Calls per hour (UTC), model and lane: results, time in milliseconds and cost. Throttled answers (429, 503) are no calls.
SELECT
  TIMESTAMP_TRUNC(ended_at, HOUR) AS hour,
  model,
  lane,
  tier,
  COUNT(*) AS calls,
  COUNTIF(result = 'image') AS images,
  COUNTIF(result = 'refused') AS refused,
  COUNTIF(result = 'error') AS errors,
  COUNTIF(result = 'unknown') AS unanswered,
  CAST(ROUND(AVG(call_ms)) AS INT64) AS mean_ms,
  MAX(call_ms) AS max_ms,
  SUM(IFNULL(cost_usd, 0)) AS cost_usd
FROM `${dataset}.attempts`
GROUP BY hour, model, lane, tier
