-- Archived sessions of a bot whose call began in a stretch of time, and that are not among those listed for it.
-- $1 bot, $2 from, $3 to, $4 session IDs listed, $5 their kinds
SELECT q.session_id, q.kind, q.state, q.started_at, q.finished_at
FROM archive_queue q
WHERE q.bot = $1 AND q.started_at >= $2 AND q.started_at < $3 AND q.state = 'archived'
  AND NOT EXISTS (SELECT FROM unnest($4::text[], $5::text[]) AS g (session_id, kind)
                  WHERE archive_short(g.session_id) = q.session_id AND g.kind = q.kind)
ORDER BY q.started_at, q.session_id
