-- Assets and cost per day, campaign, client, model and tier, in US dollars at list price.
SELECT
  DATE(finished_at) AS day,
  campaign,
  client,
  model,
  tier,
  COUNTIF(outcome = 'succeeded') AS assets,
  COUNT(*) AS jobs,
  SUM(cost_usd) AS cost_usd
FROM `${dataset}.generations`
GROUP BY day, campaign, client, model, tier
