-- One row per submission and job: how the job ended for that submission. A job that several submissions have costs money in the
-- first of them only. Messages that were no valid jobs are left out: no submission published them.
SELECT *
FROM `${dataset}.generations_raw`
WHERE NOT STARTS_WITH(job_id, 'invalid-') OR reason = 'id_conflict'
QUALIFY ROW_NUMBER() OVER (PARTITION BY submission, job_id ORDER BY finished_at, received_at, worker) = 1
