-- Recorded files that have flags for an auditor.
SELECT session_id, flags FROM archived_recordings WHERE flags <> '{}' ORDER BY queue_id, store_key
