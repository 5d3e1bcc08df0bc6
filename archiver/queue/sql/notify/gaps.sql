-- One message for each of these accounts that found new gaps: days that are over and of which something is open, or that could not
-- be listed, and of which the account before it that says anything of that day did not say so already. A day that could not be listed
-- again stays complete if it was (see figures/nights).
WITH untold AS MATERIALIZED (
    SELECT a.id, a.made_at, a.command, a.failed_bots, format('gap:%s:%s', a.id, extract(epoch FROM a.made_at)) AS matter
    FROM archive_accounts a CROSS JOIN archive_notifier f
    WHERE a.id = ANY (:ids::bigint[]) AND a.made_at >= greatest((f.floors ->> 'gap')::timestamptz, clock_timestamp() - :look_back::interval)
), gaps AS MATERIALIZED (
    SELECT u.id, d.bot, d.day, d.open_calls, row_number() OVER (PARTITION BY u.id ORDER BY d.day DESC, d.bot) AS place
    FROM untold u JOIN archive_account_days d ON d.account_id = u.id
    LEFT JOIN LATERAL (
        SELECT NOT p.complete AS open FROM archive_account_days p JOIN archive_accounts pa ON pa.id = p.account_id
        WHERE p.bot = d.bot AND p.day = d.day AND p.account_id < u.id AND (p.whole OR p.open_calls > 0 OR pa.failed_bots ? p.bot)
        ORDER BY p.account_id DESC LIMIT 1
    ) before ON true
    LEFT JOIN LATERAL (
        SELECT p.complete FROM archive_account_days p
        WHERE p.bot = d.bot AND p.day = d.day AND p.account_id < u.id AND p.whole
        ORDER BY p.account_id DESC LIMIT 1
    ) known ON true
    WHERE NOT d.complete AND (d.whole OR d.open_calls > 0 OR u.failed_bots ? d.bot AND known.complete IS NOT TRUE)
      AND before.open IS NOT TRUE
)
INSERT INTO archive_notifications (matter, event, payload)
SELECT u.matter, 'gap', jsonb_build_object('account', u.id, 'made_at', u.made_at, 'command', u.command, 'days', g.days, 'days_total', g.total)
FROM untold u JOIN (
    SELECT id, count(*) AS total,
           jsonb_agg(jsonb_build_object('bot', bot, 'day', day, 'open_calls', open_calls) ORDER BY place) FILTER (WHERE place <= :listed::integer) AS days
    FROM gaps GROUP BY id
) g USING (id)
ORDER BY u.id
ON CONFLICT (matter) DO NOTHING
RETURNING id
