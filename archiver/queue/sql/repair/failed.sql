-- A page of failed sessions, from behind (:finished_at, :after) on, and whether a body of theirs lies in quarantine.
SELECT p.id, p.finished_at,
       EXISTS (SELECT FROM archive_history e WHERE e.queue_id = p.id AND e.event = 'file_failed' AND e.data ? 'quarantined') AS quarantined
FROM (
    SELECT id, finished_at FROM archive_queue
    WHERE state = 'failed' AND finished_at IS NOT NULL AND (finished_at, id) > (:finished_at::timestamptz, :after::bigint)
      AND bot = coalesce(:bot, bot) AND kind = coalesce(:kind, kind)
    ORDER BY finished_at, id LIMIT :page
) p
ORDER BY p.finished_at, p.id
