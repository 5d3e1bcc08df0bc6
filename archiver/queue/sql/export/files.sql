-- Recorded files of these sessions.
SELECT r.store_key, r.sha256 FROM archived_recordings r WHERE r.queue_id = ANY (:queue_ids::bigint[]) ORDER BY r.store_key
