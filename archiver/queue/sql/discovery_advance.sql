-- All up to here is in the queue. $1 reading, $2 reached, $3 calls more, $4 of these new, $5 problems more, $6 source (null: none was
-- asked), $7 it is the end
UPDATE archive_discoveries
SET reached = least(greatest($2, from_at), to_at), calls = calls + $3, added = added + $4, problems = problems || $5::jsonb,
    source = coalesce($6, source), finished_at = CASE WHEN $7::boolean THEN clock_timestamp() END
WHERE id = $1
RETURNING id
