-- Nothing of these bots is claimed any more. $1 names (null: all), $2 who
WITH named AS MATERIALIZED (
    SELECT name, paused_at FROM archive_bots WHERE $1::text[] IS NULL OR name = ANY ($1) ORDER BY name FOR UPDATE
), paused AS (
    UPDATE archive_bots b SET paused_at = clock_timestamp(), paused_by = $2
    FROM named n WHERE b.name = n.name AND n.paused_at IS NULL
    RETURNING b.name
), noted AS (
    INSERT INTO archive_bot_events (bot, event, actor) SELECT name, 'paused', $2 FROM paused ORDER BY name
)
SELECT name FROM named ORDER BY name
