-- Renew a lease that still holds. No row: it ran out, and the sessions may be with others. $1 worker, $2 lease
UPDATE archive_workers SET renewed_at = clock_timestamp(), expires_at = clock_timestamp() + $2::interval
WHERE id = $1 AND expires_at > clock_timestamp()
RETURNING id
