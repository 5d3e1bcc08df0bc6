-- Which archive this is, and what is known of its store.
SELECT archive_id, created_at, store_marked_at AS marked_at, store_url AS url,
       EXISTS (SELECT FROM archive_queue) AS has_sessions, EXISTS (SELECT FROM archived_recordings) AS has_recordings
FROM archive_identity
