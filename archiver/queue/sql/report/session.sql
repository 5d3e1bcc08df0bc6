-- One session, whole: its row, its recordings, its history in time order; every history begins with "enqueued", unless old
-- history was removed. :bot and :kind may be null: any.
SELECT to_jsonb(s) - 'queue_id' AS session,
       (SELECT coalesce(jsonb_agg(to_jsonb(r) - 'queue_id' ORDER BY r.ordinal, r.store_key), '[]')
        FROM archived_recordings r WHERE r.queue_id = s.queue_id) AS recordings,
       (SELECT coalesce(jsonb_agg(to_jsonb(e) - 'queue_id' - 'id' - 'place' ORDER BY e.at, e.id, e.place), '[]')
        FROM archive_history e WHERE e.queue_id = s.queue_id) AS events,
       EXISTS (SELECT FROM archive_pruning WHERE queue_id > 0)
       AND NOT EXISTS (SELECT FROM archive_history e WHERE e.queue_id = s.queue_id AND e.event = 'enqueued') AS history_removed
FROM archive_sessions s
WHERE s.session_id = archive_short(:session_id) AND s.bot = coalesce(:bot, s.bot) AND s.kind = coalesce(:kind, s.kind)
ORDER BY s.bot, s.kind
