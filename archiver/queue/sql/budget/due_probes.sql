-- When budgets that are blocked for long are to be probed. :turn is how long a worker may take the turn.
SELECT key, blocked_until - :turn::interval - clock_timestamp() AS due_in FROM archive_budgets
WHERE key = ANY (:budgets::text[]) AND strikes BETWEEN -10 AND -1 AND blocked_until > clock_timestamp()
