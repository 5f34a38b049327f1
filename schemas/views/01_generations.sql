-- One row per job: its terminal outcome. Rows are appended at least once; the first to be decided stands, and of a job that several
-- submissions have, the row of the one that paid.
SELECT *
FROM `${dataset}.generations_raw`
WHERE TRUE
QUALIFY ROW_NUMBER() OVER (PARTITION BY job_id ORDER BY finished_at, attempts DESC, received_at, worker) = 1
