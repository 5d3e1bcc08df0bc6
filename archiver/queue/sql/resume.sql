-- Go on with these bots: pauses and holds end. $1 names (null: all)
WITH resumed AS (
    UPDATE archive_bots SET paused_at = NULL, paused_by = NULL WHERE $1::text[] IS NULL OR name = ANY ($1) RETURNING name
), released AS (
    DELETE FROM archive_holds WHERE $1::text[] IS NULL OR bot = ANY ($1) RETURNING bot
), woken AS (
    SELECT pg_notify('archive_queue', '')
)
SELECT resumed.name, (SELECT count(*) FROM released WHERE bot = resumed.name) AS holds FROM resumed LEFT JOIN woken ON true
ORDER BY name
