-- When the next turn to probe is: after twice the pause; where no call was :granted, once one may be, after :wait. After ten
-- turns there is none: the budget opens by itself, since it may be the harmless call alone that is refused, and sessions would
-- wait for it for ever. :turn is how long a worker may take the turn.
UPDATE archive_budgets
SET blocked_until = clock_timestamp() + :turn::interval
                    + CASE WHEN :granted::boolean THEN least(:max_pause::interval, :min_pause::interval * power(2, -strikes))
                           ELSE :wait::interval END,
    strikes = greatest(strikes - :granted::boolean::integer, -11)
WHERE key = :budget
