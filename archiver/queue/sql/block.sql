-- The platform refused for its rate limit: nobody asks for this bot before it may go on. Without a Retry-After ($2 null)
-- the wait doubles from $3 up to a minute; the same refusal, met by several calls at once, counts once.
INSERT INTO archive_budgets AS b (key, blocked_until, strikes)
VALUES ($1, clock_timestamp() + coalesce($2::interval, least($3::interval, interval '60 seconds')), ($2::interval IS NULL)::integer)
ON CONFLICT (key) DO UPDATE
SET blocked_until = CASE
        WHEN $2::interval IS NOT NULL THEN greatest(b.blocked_until, clock_timestamp() + $2::interval)
        WHEN b.blocked_until > clock_timestamp() THEN b.blocked_until
        ELSE clock_timestamp() + least($3::interval * power(2, least(b.strikes, 10)), interval '60 seconds') END,
    strikes = CASE
        WHEN $2::interval IS NOT NULL THEN 0
        WHEN b.blocked_until > clock_timestamp() THEN b.strikes
        ELSE b.strikes + 1 END
RETURNING blocked_until - clock_timestamp() AS wait
