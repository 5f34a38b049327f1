-- One row per submission: its newest receipt.
SELECT *
FROM `${dataset}.submissions_raw`
WHERE TRUE
QUALIFY ROW_NUMBER() OVER (PARTITION BY submission ORDER BY submitted_at DESC, receipt) = 1
