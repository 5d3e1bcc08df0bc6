-- What a worker has on its way, by itself; nothing once its lease has run out, when its sessions may be with others.
-- $1 worker, $2 progress
UPDATE archive_workers SET progress = $2, progress_at = clock_timestamp()
WHERE id = $1 AND expires_at > clock_timestamp()
RETURNING id
