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
SELECT u.bot, coalesce(sum(c.sessions), 0)::bigint AS sessions
FROM unknown u LEFT JOIN (SELECT bot, sessions FROM archive_counts WHERE state = 'pending' AND bot = ANY (ARRAY(SELECT bot FROM unknown))) c
     ON c.bot = u.bot
GROUP BY u.bot ORDER BY u.bot
