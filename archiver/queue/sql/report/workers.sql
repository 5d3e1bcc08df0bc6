-- Workers, what they hold (the longest held first; without :all_sessions that one alone) and the progress of their transfers. One
-- that is off the list and still holds something (its sessions are about to be taken over) is known by its ID alone. A dead one's
-- progress is no longer true.
WITH held AS (
    SELECT q.worker_id, count(*) AS claimed,
           jsonb_agg(jsonb_build_object('bot', q.bot, 'session_id', q.session_id, 'kind', q.kind, 'since', q.claimed_at)
                     ORDER BY q.claimed_at, q.id) AS sessions
    FROM archive_queue q WHERE q.worker_id IS NOT NULL GROUP BY q.worker_id
)
SELECT jsonb_build_object(
           'id', coalesce(w.id, h.worker_id), 'host', w.host, 'pid', w.pid, 'version', w.version, 'store', w.store, 'started_at', w.started_at,
           'renewed_at', w.renewed_at, 'lease_until', w.expires_at, 'alive', coalesce(w.expires_at > clock_timestamp(), false),
           'claimed', coalesce(h.claimed, 0),
           'sessions', CASE WHEN :all_sessions THEN coalesce(h.sessions, '[]')
                            ELSE coalesce(jsonb_path_query_array(h.sessions, '$[0]'), '[]') END
       ) AS worker,
       CASE WHEN w.expires_at > clock_timestamp() THEN w.progress ELSE '{}' END AS progress, w.progress_at
FROM archive_workers w FULL JOIN held h ON h.worker_id = w.id
ORDER BY coalesce(w.id, h.worker_id)
