-- A worker leaves in order, if it holds nothing any more.
DELETE FROM archive_workers w WHERE w.id = :worker_id
  AND NOT EXISTS (SELECT FROM archive_queue q WHERE q.worker_id = w.id)
