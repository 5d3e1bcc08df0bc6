-- The last edition of each session's record.
SELECT queue_id, max(edition) AS edition FROM archive_ledger WHERE queue_id = ANY (:ids::bigint[]) AND edition IS NOT NULL GROUP BY queue_id
