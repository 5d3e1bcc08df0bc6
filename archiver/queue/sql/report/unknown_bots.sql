-- Bots that waiting rows name, and that are neither among :bots nor configured elsewhere. One index look-up a bot.
WITH RECURSIVE waiting AS (
    (SELECT bot FROM archive_queue WHERE state = 'pending' ORDER BY bot LIMIT 1)
    UNION ALL
    SELECT (SELECT q.bot FROM archive_queue q WHERE q.state = 'pending' AND q.bot > w.bot ORDER BY q.bot LIMIT 1)
    FROM waiting w WHERE w.bot IS NOT NULL
), unknown AS (
    SELECT w.bot FROM waiting w
    WHERE w.bot <> ALL (:bots::text[]) AND NOT EXISTS (SELECT FROM archive_bots b WHERE b.name = w.bot AND b.configured)
    LIMIT 50
)
SELECT u.bot, coalesce((SELECT sum(c.sessions) FROM archive_counts c WHERE c.state = 'pending' AND c.bot = u.bot), 0)::bigint AS sessions
FROM unknown u ORDER BY u.bot
