-- Write what was read (:at, by this clock) in a turn that nobody else has taken meanwhile, or (:me null) in none.
UPDATE archive_figures SET at = :at::timestamptz, document = :document::jsonb, taken_until = '-infinity'
WHERE CASE WHEN :me::uuid IS NULL THEN at < :at ELSE turn = :me END
RETURNING true AS written
