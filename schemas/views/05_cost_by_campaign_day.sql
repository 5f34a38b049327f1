-- Assets and cost per day (UTC), campaign, client, model and tier, in US dollars at list price. cost_usd includes what was
-- paid for jobs that gave no asset, so cost_per_asset_usd is what an asset really cost.
SELECT
  DATE(finished_at) AS day,
  campaign,
  client,
  model,
  tier,
  COUNT(*) AS jobs,
  COUNTIF(outcome = 'succeeded') AS assets,
  COUNTIF(outcome = 'refused') AS refused,
  COUNTIF(outcome = 'failed') AS failed,
  SUM(IFNULL(cost_usd, 0)) AS cost_usd,
  SUM(IFNULL(cost_usd, 0)) / NULLIF(COUNTIF(outcome = 'succeeded'), 0) AS cost_per_asset_usd
FROM `${dataset}.generations`
GROUP BY day, campaign, client, model, tier
