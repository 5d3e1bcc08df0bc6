-- These readings have come to their end, and so has what they were made for.
UPDATE archive_discoveries SET finished_at = clock_timestamp() WHERE id = ANY (:readings::bigint[]) AND finished_at IS NULL
RETURNING id
