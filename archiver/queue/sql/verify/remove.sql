-- All files of these sessions are what was recorded.
DELETE FROM archive_findings WHERE queue_id = ANY (:queue_ids::bigint[]) AND source = 'verify'
