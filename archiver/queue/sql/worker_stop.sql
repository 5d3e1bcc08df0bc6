-- A worker that leaves in order: it holds nothing any more. $1 worker
DELETE FROM archive_workers w WHERE w.id = $1
  AND NOT EXISTS (SELECT FROM archive_queue q WHERE q.worker_id = w.id)
