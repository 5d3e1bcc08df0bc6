-- All up to here is in the queue. Says how it stands in all, so that it may be said twice.
-- $1 reading, $2 reached, $3 calls, $4 of these new, $5 problems, $6 source (null: none was asked)
UPDATE archive_discoveries
SET reached = least(greatest($2, from_at), to_at), calls = $3, added = $4, problems = $5::jsonb, source = coalesce($6, source)
WHERE id = $1
RETURNING id
