-- When the next turn to probe is: after twice the pause; where no call was granted, once one may be. After ten turns there is none: the
-- budget opens by itself, since it may be the harmless call alone that is refused, and sessions would wait for it for ever.
-- $1 budget, $2 granted, $3 wait for a call, $4 how long somebody may take the turn, $5 the first pause, $6 the longest
UPDATE archive_budgets
SET blocked_until = clock_timestamp() + $4::interval
                    + CASE WHEN $2::boolean THEN least($6::interval, $5::interval * power(2, -strikes)) ELSE $3::interval END,
    strikes = greatest(strikes - $2::boolean::integer, -11)
WHERE key = $1
