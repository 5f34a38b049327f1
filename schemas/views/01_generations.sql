-- One row per job: its terminal outcome. Rows are appended at least once; the first to be decided and received stands.
SELECT *
FROM `${dataset}.generations_raw`
WHERE TRUE
QUALIFY ROW_NUMBER() OVER (PARTITION BY job_id ORDER BY finished_at, received_at, worker) = 1
