-- Which sessions the entries are about that have only the hash of an ID.
SELECT a.seq, a.salt, q.bot, q.session_id, q.kind
FROM archive_ledger a JOIN archive_queue q ON q.id = a.queue_id
WHERE a.salt IS NOT NULL ORDER BY a.seq
