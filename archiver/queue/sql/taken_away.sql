-- Claims that no longer hold. $1 rows, $2 their epochs
SELECT c.id FROM unnest($1::bigint[], $2::bigint[]) AS c (id, epoch)
WHERE NOT EXISTS (SELECT FROM archive_queue q WHERE q.id = c.id AND q.epoch = c.epoch AND q.worker_id IS NOT NULL)
