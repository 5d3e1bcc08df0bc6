-- Write the progress of a worker's transfers; nothing once its lease has run out: its sessions may be with others.
UPDATE archive_workers SET progress = :progress, progress_at = clock_timestamp()
WHERE id = :worker_id AND expires_at > clock_timestamp()
RETURNING id
