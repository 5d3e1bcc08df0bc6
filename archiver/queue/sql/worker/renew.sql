-- Renew a lease that still holds. No row: it ran out, and the sessions may be with others.
UPDATE archive_workers SET renewed_at = clock_timestamp(), expires_at = clock_timestamp() + :lease::interval
WHERE id = :worker_id AND expires_at > clock_timestamp()
RETURNING id
