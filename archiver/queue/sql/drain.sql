-- What stands between a drain and its end. Rechecks don't, but for the drain of a night: then those that were due when it began,
-- and nothing of low priority.
-- $1 bots served here, $2 when it began: failures count from then on, $3 whether it is that of a night
WITH waiting AS (
    SELECT q.bot, q.kind, count(*) AS sessions, min(q.run_at) AS next
    FROM archive_queue q WHERE q.state = 'pending' AND (q.priority <> 'low' OR NOT $3::boolean) GROUP BY q.bot, q.kind
), sorted AS (
    SELECT w.*, CASE
               WHEN w.bot <> ALL ($1::text[]) THEN 'unknown_bot'
               WHEN EXISTS (SELECT FROM archive_bots b WHERE b.name = w.bot AND b.paused_at IS NOT NULL) THEN 'paused'
               WHEN EXISTS (SELECT FROM archive_holds h WHERE h.bot = w.bot AND h.kind = w.kind) THEN 'held'
           END AS left_because
    FROM waiting w
)
SELECT (SELECT coalesce(sum(sessions), 0) FROM sorted WHERE left_because IS NULL)::bigint AS workable,
       (SELECT greatest(min(next), now()) - now() FROM sorted WHERE left_because IS NULL HAVING count(*) > 0) AS due_in,
       (SELECT count(*) FROM archive_queue
        WHERE worker_id IS NOT NULL AND CASE WHEN $3 THEN state <> 'claimed' OR priority <> 'low' ELSE state = 'claimed' END) AS claimed,
       CASE WHEN $3 THEN (
           SELECT count(*) FROM archive_queue q JOIN archive_bots b ON b.name = q.bot
           WHERE q.recheck_at <= $2 AND q.worker_id IS NULL AND q.bot = ANY ($1) AND b.paused_at IS NULL
             AND NOT EXISTS (SELECT FROM archive_holds h WHERE h.bot = q.bot AND h.kind = q.kind))
       ELSE 0 END AS rechecks,
       (SELECT count(*) FROM archive_queue
        WHERE state = 'failed' AND finished_at >= $2 AND (priority <> 'low' OR NOT $3)) AS failed,
       (SELECT coalesce(jsonb_agg(jsonb_build_object('bot', bot, 'kind', kind, 'sessions', sessions, 'because', left_because)
                                  ORDER BY bot, kind), '[]') FROM sorted WHERE left_because IS NOT NULL) AS left_pending
