-- Sessions whose files verify found not to be what was recorded, in the order of their rows; :bot and :kind may be null: any.
SELECT f.queue_id FROM archive_findings f JOIN archive_queue q ON q.id = f.queue_id
WHERE f.source = 'verify' AND f.queue_id > :after AND q.bot = coalesce(:bot, q.bot) AND q.kind = coalesce(:kind, q.kind)
ORDER BY f.queue_id LIMIT 1000
