-- Readings have come to their end, and to that of what they were made for. $1 readings
UPDATE archive_discoveries SET finished_at = clock_timestamp() WHERE id = ANY ($1::bigint[]) AND finished_at IS NULL
RETURNING id
