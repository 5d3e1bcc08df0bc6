-- A row: it is this caller's turn to probe. Until its transaction ends nobody else sees that the budget is open, so that the call
-- can be drawn from it; budget/schedule_probe blocks it again. :turn is how long a worker may take the turn.
UPDATE archive_budgets SET blocked_until = '-infinity'
WHERE key = :budget AND strikes BETWEEN -10 AND -1 AND blocked_until BETWEEN clock_timestamp() AND clock_timestamp() + :turn::interval
RETURNING key
