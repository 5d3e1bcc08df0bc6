-- Archived sessions of a bot whose call began in [:start, :end), and that are not among those listed for it (arrays of one
-- length).
SELECT q.session_id, q.kind, q.state, q.started_at, q.finished_at
FROM archive_queue q
WHERE q.bot = :bot AND q.started_at >= :start AND q.started_at < :end AND q.state = 'archived'
  AND NOT EXISTS (SELECT FROM unnest(:session_ids::text[], :kinds::text[]) AS g (session_id, kind)
                  WHERE archive_short(g.session_id) = q.session_id AND g.kind = q.kind)
ORDER BY q.started_at, q.session_id
