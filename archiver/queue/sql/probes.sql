-- When budgets that are blocked for long are to be probed. $1 budgets, $2 how long somebody may take the turn
SELECT key, blocked_until - $2::interval - clock_timestamp() AS due_in FROM archive_budgets
WHERE key = ANY ($1::text[]) AND strikes BETWEEN -10 AND -1 AND blocked_until > clock_timestamp()
