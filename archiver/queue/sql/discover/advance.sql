-- All up to :reached is in the queue. :calls, :added and :problems are totals, so that it may be written twice. :source is null
-- where none was asked.
UPDATE archive_discoveries
SET reached = least(greatest(:reached, from_at), to_at), calls = :calls, added = :added, problems = :problems::jsonb,
    source = coalesce(:source, source)
WHERE id = :reading
RETURNING id
