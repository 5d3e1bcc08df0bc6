-- Temporary files that dead workers may have left, with what their names are made of.
SELECT l.queue_id, l.worker_id, l.epoch, q.bot, q.session_id, q.kind, q.archive_date
FROM archive_leftovers l JOIN archive_queue q ON q.id = l.queue_id
ORDER BY l.queue_id LIMIT 1000
