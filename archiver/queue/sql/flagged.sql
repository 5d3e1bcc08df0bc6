-- Recorded files that auditors should know something of, shortest.
SELECT session_id, flags FROM archived_recordings WHERE flags <> '{}' ORDER BY queue_id, store_key
