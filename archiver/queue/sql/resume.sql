-- Go on with these bots: pauses and holds end. $1 names (null: all), $2 who
WITH named AS MATERIALIZED (
    SELECT name, paused_at, paused_by FROM archive_bots WHERE $1::text[] IS NULL OR name = ANY ($1) ORDER BY name FOR UPDATE
), resumed AS (
    UPDATE archive_bots b SET paused_at = NULL, paused_by = NULL FROM named n WHERE b.name = n.name AND n.paused_at IS NOT NULL
), released AS (
    DELETE FROM archive_holds WHERE $1::text[] IS NULL OR bot = ANY ($1) RETURNING bot, kind, reason
), noted AS (
    INSERT INTO archive_bot_events (bot, event, actor, data)
    SELECT n.name, 'resumed', $2, jsonb_strip_nulls(jsonb_build_object(
               'paused_at', n.paused_at, 'paused_by', n.paused_by,
               'holds', (SELECT jsonb_object_agg(r.kind, r.reason) FROM released r WHERE r.bot = n.name)))
    FROM named n
    WHERE n.paused_at IS NOT NULL OR EXISTS (SELECT FROM released r WHERE r.bot = n.name)
    ORDER BY n.name
), woken AS (
    SELECT pg_notify('archive_queue', '') WHERE pg_notification_queue_usage() < 0.5
)
SELECT n.name, (SELECT count(*) FROM released r WHERE r.bot = n.name) AS holds FROM named n LEFT JOIN woken ON true
ORDER BY n.name
