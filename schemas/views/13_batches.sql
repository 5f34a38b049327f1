-- One row per batch: the newest that is known of it. done, refused, failed and requeued add up to jobs once it is closed; saved_usd is
-- what it cost less than online calls.
SELECT *
FROM `${dataset}.batches_raw`
WHERE TRUE
QUALIFY ROW_NUMBER() OVER (PARTITION BY batch_id ORDER BY IF(state = 'closed', 1, 0) DESC, changed_at DESC, worker) = 1
