-- What came of a probe: the budget opens after :wait at the latest (of nothing: at once). A wait longer than :max_retry_after
-- goes on being probed. :turn is how long a worker may take the turn.
UPDATE archive_budgets
SET blocked_until = least(blocked_until, clock_timestamp() + :wait::interval
                                         + CASE WHEN :wait::interval > :max_retry_after::interval THEN :turn::interval
                                                ELSE interval '0' END),
    strikes = CASE WHEN :wait::interval > :max_retry_after::interval THEN strikes ELSE 0 END
WHERE key = :budget AND strikes < 0
