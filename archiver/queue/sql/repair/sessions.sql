-- Sessions that are to be repaired: their rows, their recorded files, and, of failed ones, what was refused of them and kept.
SELECT q.id, q.epoch, q.worker_id IS NOT NULL AS held, q.bot, q.session_id, q.kind, q.user_id, q.archive_date, q.state, q.files AS listed,
       q.detail ->> 'message' AS message, 'conflict' IN (coalesce(q.reason, ''), coalesce(q.detail ->> 'reason', '')) AS conflict, clock_timestamp() AS now,
       ARRAY(SELECT jsonb_build_object('ordinal', r.ordinal, 'source_name', r.source_name, 'file_name', r.file_name,
                                       'store_key', r.store_key, 'bytes', r.bytes, 'sha256', r.sha256)
             FROM archived_recordings r WHERE r.queue_id = q.id ORDER BY r.ordinal, r.store_key) AS files,
       CASE WHEN q.state <> 'failed' THEN '{}'
            ELSE ARRAY(SELECT jsonb_build_object('epoch', e.epoch, 'facts', e.data) FROM archive_history e
                       WHERE e.queue_id = q.id AND e.event = 'file_failed' ORDER BY e.at, e.id, e.place) END AS refused
FROM archive_queue q WHERE q.id = ANY (:ids::bigint[]) ORDER BY q.id
