-- End the pauses and holds of these bots (null: all).
WITH named AS MATERIALIZED (
    SELECT name, paused_at, paused_by FROM archive_bots WHERE :bots::text[] IS NULL OR name = ANY (:bots) ORDER BY name FOR UPDATE
), resumed AS (
    UPDATE archive_bots b SET paused_at = NULL, paused_by = NULL FROM named n WHERE b.name = n.name AND n.paused_at IS NOT NULL
), released AS (
    DELETE FROM archive_holds WHERE :bots::text[] IS NULL OR bot = ANY (:bots) RETURNING bot, kind, reason
), noted AS (
    INSERT INTO archive_bot_events (bot, event, actor, data)
    SELECT n.name, 'resumed', :actor, jsonb_strip_nulls(jsonb_build_object(
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
