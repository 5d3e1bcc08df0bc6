-- The platform answered again: the next refusal doubles from the start.
UPDATE archive_budgets SET strikes = 0 WHERE key = :budget AND strikes <> 0 AND blocked_until <= clock_timestamp()
