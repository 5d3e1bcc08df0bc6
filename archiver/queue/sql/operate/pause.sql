-- Let nothing of these bots (null: all) be claimed any more.
WITH named AS MATERIALIZED (
    SELECT name, paused_at FROM archive_bots WHERE :bots::text[] IS NULL OR name = ANY (:bots) ORDER BY name FOR UPDATE
), paused AS (
    UPDATE archive_bots b SET paused_at = clock_timestamp(), paused_by = :actor
    FROM named n WHERE b.name = n.name AND n.paused_at IS NULL
    RETURNING b.name
), noted AS (
    INSERT INTO archive_bot_events (bot, event, actor) SELECT name, 'paused', :actor FROM paused ORDER BY name
)
SELECT name FROM named ORDER BY name
