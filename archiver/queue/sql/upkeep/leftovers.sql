-- Temporary files that workers may have left, with what their names are made of. One that still lives removes its own.
-- In no order: where one cannot be removed, a sweep ends, and the others must not wait for that one for ever.
SELECT l.queue_id, l.worker_id, l.epoch, q.bot, q.session_id, q.kind, q.archive_date,
       clock_timestamp() - l.left_at AS left_for
FROM archive_leftovers l JOIN archive_queue q ON q.id = l.queue_id
WHERE NOT EXISTS (SELECT FROM archive_workers w WHERE w.id = l.worker_id AND w.expires_at > clock_timestamp())
ORDER BY random() LIMIT 1000
