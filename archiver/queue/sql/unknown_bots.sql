-- Bots that rows name and no configuration knows. $1 bots served here
SELECT DISTINCT q.bot, count(*) AS sessions FROM archive_queue q
WHERE q.state = 'pending' AND q.bot <> ALL ($1::text[])
  AND NOT EXISTS (SELECT FROM archive_bots b WHERE b.name = q.bot AND b.configured)
GROUP BY q.bot ORDER BY q.bot LIMIT 50
