-- A row: it is this caller's turn to probe. Until its transaction ends nobody else sees that the budget is open, so that the call
-- can be drawn from it; `probe_next` blocks it again. $1 budget, $2 how long somebody may take the turn
UPDATE archive_budgets SET blocked_until = '-infinity'
WHERE key = $1 AND strikes BETWEEN -10 AND -1 AND blocked_until BETWEEN clock_timestamp() AND clock_timestamp() + $2::interval
RETURNING key
