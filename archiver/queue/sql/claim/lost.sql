-- Which of these claims (arrays of one length) no longer hold: cancelled, or rescued.
SELECT c.id FROM unnest(:ids::bigint[], :epochs::bigint[]) AS c (id, epoch)
WHERE NOT EXISTS (SELECT FROM archive_queue q WHERE q.id = c.id AND q.epoch = c.epoch AND q.worker_id IS NOT NULL)
