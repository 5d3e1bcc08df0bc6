-- One message for all holds that began since holds were told of first, and that none tells of: :most of them, the oldest first; more next
-- time.
WITH untold AS MATERIALIZED (
    SELECT h.bot, h.kind, h.reason, h.since, k.key
    FROM archive_holds h CROSS JOIN archive_notifier f
    CROSS JOIN LATERAL (SELECT format('hold:%s:%s:%s', h.bot, h.kind, extract(epoch FROM h.since)) AS key) k
    WHERE h.since >= greatest((f.floors ->> 'hold')::timestamptz, clock_timestamp() - :look_back::interval)
      AND k.key NOT IN (SELECT c FROM archive_notifications told, unnest(told.covers) c WHERE c IS NOT NULL)
    ORDER BY h.since, h.bot, h.kind LIMIT :most::integer
), placed AS (
    SELECT *, row_number() OVER (ORDER BY since, bot, kind) AS place FROM untold
)
INSERT INTO archive_notifications (matter, event, covers, payload)
SELECT 'hold:' || md5(string_agg(key, E'\n' ORDER BY place)), 'hold', array_agg(key ORDER BY place),
       jsonb_build_object(
           'holds', jsonb_agg(jsonb_build_object('bot', bot, 'kind', kind, 'reason', left(reason, 100), 'since', since) ORDER BY place)
                    FILTER (WHERE place <= :listed::integer),
           'holds_total', count(*))
FROM placed HAVING count(*) > 0
ON CONFLICT (matter) DO NOTHING
RETURNING id
