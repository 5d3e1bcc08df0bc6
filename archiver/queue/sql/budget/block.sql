-- The platform refused a call for its rate limit: nobody draws from this budget before it may go on. Without a Retry-After
-- (:retry_after null) the wait doubles from :backoff_base up to a minute; the same refusal, met by several calls at once, counts
-- once. A Retry-After longer than :max_retry_after may be one session's alone: the budget is probed after :min_pause, then in
-- pauses that double up to :max_pause. Until a probe passes, `strikes` counts these pauses below zero, and the block lasts
-- :turn longer than its pause: so long a worker may take the turn (budget/take_probe). Where none does, the budget opens by
-- itself.
INSERT INTO archive_budgets AS b (key, blocked_until, strikes)
VALUES (:budget,
        clock_timestamp() + CASE WHEN :retry_after::interval > :max_retry_after::interval THEN :min_pause::interval + :turn::interval
                                 ELSE coalesce(:retry_after::interval, least(:backoff_base::interval, interval '60 seconds')) END,
        CASE WHEN :retry_after::interval > :max_retry_after::interval THEN -1 ELSE (:retry_after::interval IS NULL)::integer END)
ON CONFLICT (key) DO UPDATE
SET blocked_until = CASE
        WHEN :retry_after::interval > :max_retry_after::interval AND b.strikes < 0 AND b.blocked_until > clock_timestamp()
            THEN b.blocked_until
        WHEN :retry_after::interval > :max_retry_after::interval
            THEN greatest(b.blocked_until, clock_timestamp() + :turn::interval
                          + least(:max_pause::interval, :min_pause::interval * power(2,
                                CASE WHEN b.blocked_until > clock_timestamp() - :max_pause::interval
                                     THEN greatest(-b.strikes, 0) ELSE 0 END)))
        WHEN :retry_after::interval IS NOT NULL THEN greatest(b.blocked_until, clock_timestamp() + :retry_after::interval)
        WHEN b.blocked_until > clock_timestamp() THEN b.blocked_until
        ELSE clock_timestamp() + least(:backoff_base::interval * power(2, least(greatest(b.strikes, 0), 10)), interval '60 seconds') END,
    strikes = CASE
        WHEN :retry_after::interval > :max_retry_after::interval AND b.strikes < 0 AND b.blocked_until > clock_timestamp()
            THEN b.strikes
        WHEN :retry_after::interval > :max_retry_after::interval
            THEN CASE WHEN b.blocked_until > clock_timestamp() - :max_pause::interval
                      THEN greatest(least(b.strikes, 0) - 1, -10) ELSE -1 END
        WHEN b.strikes < 0 AND b.blocked_until > clock_timestamp() + coalesce(:retry_after::interval, interval '0') THEN b.strikes
        WHEN :retry_after::interval IS NOT NULL THEN 0
        WHEN b.blocked_until > clock_timestamp() THEN b.strikes
        ELSE greatest(b.strikes, 0) + 1 END
RETURNING blocked_until - clock_timestamp() AS wait
