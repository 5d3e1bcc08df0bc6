-- The platform refused for its rate limit: nobody asks for this bot before it may go on. Without a Retry-After ($2 null)
-- the wait doubles from $3 up to a minute; the same refusal, met by several calls at once, counts once.
-- A Retry-After longer than $4 may be one session's alone: the budget is probed after $5, then in pauses that double up to $6. Until
-- a probe passes `strikes` counts these pauses below zero, and the block lasts $7 longer than its pause: so long somebody may take
-- the turn (probe_turn). Where nobody does, it opens by itself.
INSERT INTO archive_budgets AS b (key, blocked_until, strikes)
VALUES ($1, clock_timestamp() + CASE WHEN $2::interval > $4::interval THEN $5::interval + $7::interval
                                     ELSE coalesce($2::interval, least($3::interval, interval '60 seconds')) END,
        CASE WHEN $2::interval > $4::interval THEN -1 ELSE ($2::interval IS NULL)::integer END)
ON CONFLICT (key) DO UPDATE
SET blocked_until = CASE
        WHEN $2::interval > $4::interval AND b.strikes < 0 AND b.blocked_until > clock_timestamp() THEN b.blocked_until
        WHEN $2::interval > $4::interval
            THEN greatest(b.blocked_until, clock_timestamp() + $7::interval
                          + least($6::interval, $5::interval * power(2, CASE WHEN b.blocked_until > clock_timestamp() - $6::interval
                                                                            THEN greatest(-b.strikes, 0) ELSE 0 END)))
        WHEN $2::interval IS NOT NULL THEN greatest(b.blocked_until, clock_timestamp() + $2::interval)
        WHEN b.blocked_until > clock_timestamp() THEN b.blocked_until
        ELSE clock_timestamp() + least($3::interval * power(2, least(greatest(b.strikes, 0), 10)), interval '60 seconds') END,
    strikes = CASE
        WHEN $2::interval > $4::interval AND b.strikes < 0 AND b.blocked_until > clock_timestamp() THEN b.strikes
        WHEN $2::interval > $4::interval
            THEN CASE WHEN b.blocked_until > clock_timestamp() - $6::interval THEN greatest(least(b.strikes, 0) - 1, -10) ELSE -1 END
        WHEN b.strikes < 0 AND b.blocked_until > clock_timestamp() + coalesce($2::interval, interval '0') THEN b.strikes
        WHEN $2::interval IS NOT NULL THEN 0
        WHEN b.blocked_until > clock_timestamp() THEN b.strikes
        ELSE greatest(b.strikes, 0) + 1 END
RETURNING blocked_until - clock_timestamp() AS wait
