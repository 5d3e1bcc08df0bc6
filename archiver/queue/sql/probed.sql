-- What came of a probe: the budget opens after $2 at the latest (of nothing: at once). If that is longer than $3, it goes on being
-- probed. $1 budget, $2 wait, $3 the longest wait that is believed, $4 how long somebody may take the turn
UPDATE archive_budgets
SET blocked_until = least(blocked_until, clock_timestamp() + $2::interval
                                         + CASE WHEN $2::interval > $3::interval THEN $4::interval ELSE interval '0' END),
    strikes = CASE WHEN $2::interval > $3::interval THEN strikes ELSE 0 END
WHERE key = $1 AND strikes < 0
