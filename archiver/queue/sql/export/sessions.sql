-- The sessions of these IDs, of these bots and kinds (null: any).
SELECT s.queue_id, s.bot, s.session_id, s.kind, s.state, s.reason,
       CASE WHEN s.started_at BETWEEN '1900-01-01Z' AND '9998-01-01Z' THEN s.started_at END AS started_at,
       s.accepted_by, s.accept_reason,
       (SELECT count(*) FROM archived_recordings r WHERE r.queue_id = s.queue_id) AS files,
       (SELECT coalesce(sum(r.bytes), 0) FROM archived_recordings r WHERE r.queue_id = s.queue_id)::bigint AS bytes
FROM archive_sessions s
WHERE s.session_id = ANY (:session_ids::text[])
  AND (:bots::text[] IS NULL OR s.bot = ANY (:bots)) AND (:kinds::text[] IS NULL OR s.kind = ANY (:kinds))
ORDER BY s.session_id, s.bot, s.kind
