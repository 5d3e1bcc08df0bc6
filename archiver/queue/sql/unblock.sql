-- The platform answered again: the next refusal doubles from the start. $1 budget
UPDATE archive_budgets SET strikes = 0 WHERE key = $1 AND strikes <> 0 AND blocked_until <= clock_timestamp()
