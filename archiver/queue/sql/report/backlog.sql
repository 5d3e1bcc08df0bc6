-- What stands between a drain of these bots and its end; failures count from :since, when it began. Rechecks don't stand in its
-- way, but for the drain of a :night: then those that were due when it began, and nothing of low priority.
WITH counted AS MATERIALIZED (
    SELECT bot, kind, priority, sum(sessions) AS sessions FROM archive_counts
    WHERE state = 'pending' AND (priority <> 'low' OR NOT :night::boolean) GROUP BY bot, kind, priority
), waiting AS (
    -- Whether anything of these bots waits the rows say themselves: only how much is taken from the roll-up.
    SELECT b.bot, k.kind, sum(greatest(c.sessions, 1)) AS sessions, min(first.run_at) AS next
    FROM unnest(:bots::text[]) b (bot) CROSS JOIN unnest('{recording,voicemail}'::text[]) k (kind)
    CROSS JOIN unnest('{high,normal,low}'::text[]) p (priority)
    CROSS JOIN LATERAL (
        SELECT q.run_at FROM archive_queue q
        WHERE q.state = 'pending' AND q.bot = b.bot AND q.kind = k.kind AND q.priority = p.priority ORDER BY q.run_at LIMIT 1) first
    LEFT JOIN counted c ON c.bot = b.bot AND c.kind = k.kind AND c.priority = p.priority
    WHERE p.priority <> 'low' OR NOT :night
    GROUP BY b.bot, k.kind
    UNION ALL
    -- Of the others those that have most: whoever may insert can make up any number of bots.
    (SELECT bot, kind, sum(sessions), NULL FROM counted WHERE bot <> ALL (:bots) AND sessions > 0 GROUP BY bot, kind
     ORDER BY sum(sessions) DESC, bot, kind LIMIT 100)
), sorted AS (
    SELECT w.*, CASE
               WHEN w.bot <> ALL (:bots::text[]) THEN 'unknown_bot'
               WHEN EXISTS (SELECT FROM archive_bots b WHERE b.name = w.bot AND b.paused_at IS NOT NULL) THEN 'paused'
               WHEN EXISTS (SELECT FROM archive_holds h WHERE h.bot = w.bot AND h.kind = w.kind) THEN 'held'
           END AS left_because
    FROM waiting w
)
SELECT (SELECT coalesce(sum(sessions), 0) FROM sorted WHERE left_because IS NULL)::bigint AS workable,
       (SELECT greatest(min(next), now()) - now() FROM sorted WHERE left_because IS NULL HAVING count(*) > 0) AS due_in,
       (SELECT count(*) FROM archive_queue
        WHERE worker_id IS NOT NULL
          AND CASE WHEN :night THEN state <> 'claimed' OR priority <> 'low' ELSE state = 'claimed' END) AS claimed,
       CASE WHEN :night THEN (
           SELECT count(*) FROM archive_queue q JOIN archive_bots b ON b.name = q.bot
           WHERE q.recheck_at <= :since AND q.worker_id IS NULL AND q.bot = ANY (:bots) AND b.paused_at IS NULL
             AND NOT EXISTS (SELECT FROM archive_holds h WHERE h.bot = q.bot AND h.kind = q.kind))
       ELSE 0 END AS rechecks,
       (SELECT count(*) FROM archive_queue
        WHERE state = 'failed' AND finished_at >= :since AND (priority <> 'low' OR NOT :night)) AS failed,
       (SELECT coalesce(jsonb_agg(jsonb_build_object('bot', bot, 'kind', kind, 'sessions', sessions, 'because', left_because)
                                  ORDER BY bot, kind), '[]') FROM sorted WHERE left_because IS NOT NULL) AS left_pending
