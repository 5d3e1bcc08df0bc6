-- The sessions of one ID, each with its recorded files in the order of the platform's answer. :bot and :kind may be null: any. What has no valid
-- ID is kept under another, and has no files: an auditor may not execute the function that makes it.
SELECT s.queue_id, s.bot, s.session_id, s.kind, s.state, s.reason,
       ARRAY(SELECT jsonb_build_object('ordinal', r.ordinal, 'source_name', r.source_name, 'file_name', r.file_name,
                                       'store_key', r.store_key, 'bytes', r.bytes, 'sha256', r.sha256)
             FROM archived_recordings r WHERE r.queue_id = s.queue_id ORDER BY r.ordinal, r.store_key) AS files
FROM archive_sessions s
WHERE s.session_id = :session_id AND s.bot = coalesce(:bot, s.bot) AND s.kind = coalesce(:kind, s.kind)
ORDER BY s.bot, s.kind
