-- One row per call that was paid, refused, or whose fate is unknown.
SELECT *
FROM `${dataset}.attempts_raw`
WHERE TRUE
QUALIFY ROW_NUMBER() OVER (PARTITION BY attempt_id ORDER BY ended_at) = 1
