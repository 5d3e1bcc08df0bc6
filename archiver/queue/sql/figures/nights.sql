-- Of each configured bot that was ever accounted for: days that are over and not complete, for how long the first of them has been
-- over, and the end of the last complete one. A day is complete where the latest account of the whole of it says so, and no later one of
-- a part found something open. One of which no account was made at all, since the first night, counts once it has been over for a day:
-- until then its night may be still to come.
WITH bots AS MATERIALIZED (
    SELECT name FROM archive_bots WHERE configured
), known AS MATERIALIZED (
    SELECT d.bot, d.day, max(d.to_at) FILTER (WHERE d.whole) AS ended,
           coalesce(max(d.account_id) FILTER (WHERE d.whole AND d.complete) = max(d.account_id) FILTER (WHERE d.whole)
                    AND NOT coalesce(max(d.account_id) FILTER (WHERE NOT d.whole AND d.open_calls > 0)
                                     > max(d.account_id) FILTER (WHERE d.whole), false), false) AS complete,
           bool_or(d.whole AND a.command = 'nightly') AS nightly
    FROM archive_account_days d JOIN archive_accounts a ON a.id = d.account_id
    WHERE d.bot = ANY (ARRAY(SELECT name FROM bots)) AND d.day BETWEEN '1970-01-01' AND '9000-01-01' AND isfinite(d.to_at)
    GROUP BY d.bot, d.day
), first AS MATERIALIZED (
    SELECT DISTINCT ON (bot) bot, day, ended FROM known WHERE nightly ORDER BY bot, day
), days AS MATERIALIZED (
    -- A day of which no whole account was made ends so many times 24 hours after one of which there is: to an hour.
    SELECT f.bot, f.day + n AS day, f.ended + n * interval '1 day' AS ended
    FROM first f CROSS JOIN LATERAL generate_series(0, least((now()::date - f.day) + 1, 4000)) n
), gaps AS MATERIALIZED (
    SELECT d.bot, coalesce(k.ended, d.ended) AS ended FROM days d LEFT JOIN known k ON k.bot = d.bot AND k.day = d.day
    WHERE k.complete IS NOT TRUE AND coalesce(k.ended, d.ended + interval '1 day') <= now()
    UNION ALL
    -- What was accounted for before the first night, by reconcile, and is open.
    SELECT k.bot, k.ended FROM known k LEFT JOIN first f ON f.bot = k.bot
    WHERE k.day < coalesce(f.day, 'infinity') AND NOT k.complete AND k.ended <= now()
)
SELECT b.name AS bot,
       (SELECT count(*) FROM gaps g WHERE g.bot = b.name) AS gap_days,
       (SELECT coalesce(max(extract(epoch FROM now() - g.ended)), 0) FROM gaps g WHERE g.bot = b.name)::double precision AS oldest_gap,
       (SELECT extract(epoch FROM max(k.ended)) FROM known k WHERE k.bot = b.name AND k.complete)::double precision AS last_complete
FROM bots b WHERE EXISTS (SELECT FROM known k WHERE k.bot = b.name) ORDER BY b.name
