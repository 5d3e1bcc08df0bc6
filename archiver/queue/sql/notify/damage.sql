-- One message while any session has damaged files that nobody mended or accepted: when the first is found, and again with the new total
-- where that is another one :again later. All mended: the next one is told at once.
WITH found AS MATERIALIZED (
    SELECT count(*) AS sessions, min(f.found_at) AS first, max(f.found_at) AS last
    FROM archive_findings f
    WHERE f.source = 'verify' AND NOT (
        f.accepted IS NOT NULL AND EXISTS (SELECT FROM archive_sessions s WHERE s.queue_id = f.queue_id AND s.accepted_at IS NOT NULL)
        AND NOT EXISTS (SELECT FROM jsonb_array_elements(f.findings) e
                        WHERE NOT EXISTS (SELECT FROM jsonb_array_elements(f.accepted) a WHERE a = e)))
), due AS MATERIALIZED (
    SELECT found.*, n.one, n.damage_told AS before
    FROM found CROSS JOIN archive_notifier n
    WHERE found.sessions > 0
      AND CASE WHEN n.damage_told IS NULL THEN found.last >= (n.floors ->> 'damage')::timestamptz
               ELSE n.damage_told <> found.sessions AND n.damage_told_at NOT BETWEEN clock_timestamp() - :again::interval AND clock_timestamp() END
), noted AS (
    UPDATE archive_notifier n SET damage_told = due.sessions, damage_told_at = CASE WHEN due.sessions IS NOT NULL THEN clock_timestamp() END
    FROM found LEFT JOIN due ON true
    WHERE due.sessions IS NOT NULL OR found.sessions = 0 AND n.damage_told IS NOT NULL
)
INSERT INTO archive_notifications (matter, event, payload)
SELECT format('damage:%s:%s:%s', extract(epoch FROM first), sessions, (clock_timestamp() AT TIME ZONE 'UTC')::date), 'damage',
       jsonb_build_object('sessions', sessions, 'told_before', before, 'first_found_at', first, 'last_found_at', last)
FROM due
ON CONFLICT (matter) DO NOTHING
RETURNING id
