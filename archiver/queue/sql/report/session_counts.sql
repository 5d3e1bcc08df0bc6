-- Counts by bot and state; those that wait also by kind, which may be held. Of the unavailable ones those to be asked for again.
SELECT q.bot, q.state, CASE WHEN q.state = 'pending' THEN q.kind END AS kind, count(*) AS sessions, sum(q.calls)::bigint AS calls,
       count(q.recheck_at) AS rechecks, min(q.recheck_at) AS next_recheck
FROM archive_queue q GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
