-- Recorded files of which the session's row is not there. There are none, as long as the foreign key is.
SELECT r.bot, r.session_id, r.store_key FROM archived_recordings r
WHERE NOT EXISTS (SELECT FROM archive_queue q WHERE q.id = r.queue_id) ORDER BY r.store_key
