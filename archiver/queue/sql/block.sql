-- The platform refused for its rate limit: nobody asks for this bot before it may go on. Without a Retry-After ($2 null)
-- the wait doubles from $3 up to a minute.
INSERT INTO archive_budgets (key, blocked_until, strikes)
VALUES ($1, clock_timestamp() + coalesce($2::interval, $3::interval), CASE WHEN $2::interval IS NULL THEN 1 ELSE 0 END)
ON CONFLICT (key) DO UPDATE
SET blocked_until = greatest(archive_budgets.blocked_until, clock_timestamp() + coalesce($2::interval,
        least($3::interval * power(2, least(archive_budgets.strikes, 10)), interval '60 seconds'))),
    strikes = CASE
        WHEN $2::interval IS NOT NULL THEN 0
        WHEN archive_budgets.blocked_until > clock_timestamp() THEN archive_budgets.strikes   -- the same refusal, met by several
        ELSE archive_budgets.strikes + 1 END
RETURNING blocked_until - clock_timestamp() AS wait
