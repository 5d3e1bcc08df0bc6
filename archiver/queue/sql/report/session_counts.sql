-- Counts by bot and state; those that wait also by kind, which may be held. Of the unavailable ones those to be asked for again.
SELECT c.*, CASE WHEN c.rechecks > 0 THEN least(
           (SELECT min(first.recheck_at) FROM unnest('{recording,voicemail}'::text[]) k (kind), LATERAL (
                SELECT q.recheck_at FROM archive_queue q
                WHERE q.bot = c.bot AND q.kind = k.kind AND q.recheck_at IS NOT NULL AND q.worker_id IS NULL
                ORDER BY q.recheck_at LIMIT 1) first),
           (SELECT min(q.recheck_at) FROM archive_queue q WHERE q.worker_id IS NOT NULL AND q.bot = c.bot)) END AS next_recheck
FROM (
    SELECT bot, state, CASE WHEN state = 'pending' THEN kind END AS kind, sum(sessions)::bigint AS sessions, sum(calls)::bigint AS calls,
           sum(rechecks)::bigint AS rechecks, sum(accepted)::bigint AS accepted
    FROM archive_counts GROUP BY 1, 2, 3
) c
ORDER BY c.bot, c.state, c.kind
