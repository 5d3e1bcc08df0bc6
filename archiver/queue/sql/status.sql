-- Counts by bot and state, and what a person asks first.
SELECT q.bot, q.state, count(*) AS sessions, sum(q.calls)::bigint AS calls,
       min(q.run_at) FILTER (WHERE q.state = 'pending')::text AS next
FROM archive_queue q GROUP BY q.bot, q.state ORDER BY q.bot, q.state
