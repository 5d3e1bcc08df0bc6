-- Counts by bot and state; those that wait also by kind, which may be held.
SELECT q.bot, q.state, CASE WHEN q.state = 'pending' THEN q.kind END AS kind, count(*) AS sessions, sum(q.calls)::bigint AS calls
FROM archive_queue q GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
