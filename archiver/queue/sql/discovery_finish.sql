-- A reading has come to its end, and to that of what it was made for. $1 reading
UPDATE archive_discoveries SET finished_at = clock_timestamp() WHERE id = $1 AND finished_at IS NULL
RETURNING id
