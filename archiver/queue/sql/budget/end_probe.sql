-- What came of a probe: the budget opens after :wait at the latest (of nothing: at once). A wait longer than :longest_believed
-- goes on being probed. :turn is how long a worker may take the turn.
UPDATE archive_budgets
SET blocked_until = least(blocked_until, clock_timestamp() + :wait::interval
                                         + CASE WHEN :wait::interval > :longest_believed::interval THEN :turn::interval
                                                ELSE interval '0' END),
    strikes = CASE WHEN :wait::interval > :longest_believed::interval THEN strikes ELSE 0 END
WHERE key = :budget AND strikes < 0
