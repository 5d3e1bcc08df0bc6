-- Take the turn to collect, if the last one is longer than :pause ago, or :at_once; and note when each of :events was switched on first:
-- by a clock that was ahead, now, lest nothing be told until then.
-- No row: somebody else had it, or has it at this moment. `settings_before`: of who had it last, if that was a moment ago.
WITH due AS (
    SELECT one, CASE WHEN collected_at > clock_timestamp() - 10 * :pause::interval THEN settings END AS settings_before FROM archive_notifier
    WHERE :at_once::boolean OR collected_at NOT BETWEEN clock_timestamp() - :pause AND clock_timestamp()
    FOR UPDATE SKIP LOCKED
)
UPDATE archive_notifier n
SET collected_at = clock_timestamp(), settings = :settings,
    floors = (SELECT coalesce(jsonb_object_agg(event, clock_timestamp()), '{}') FROM unnest(:events::text[]) AS event)
          || (SELECT coalesce(jsonb_object_agg(key, least(value::timestamptz, clock_timestamp())), '{}') FROM jsonb_each_text(n.floors))
FROM due WHERE n.one = due.one
RETURNING due.settings_before, (SELECT count(*) FROM (SELECT FROM archive_notifications WHERE sent_at IS NULL AND given_up_at IS NULL
                                                      LIMIT :most::integer) waiting) AS waiting
