-- Go on with the last reading of the same stretch of time if it was broken off, or begin one.
-- $1 bot, $2 purpose, $3 from, $4 to, $5 newest first, $6 begin afresh
WITH last AS (
    SELECT * FROM archive_discoveries
    WHERE bot = $1 AND purpose = $2 AND from_at = $3 AND to_at = $4 AND newest_first = $5
    ORDER BY id DESC LIMIT 1
), broken AS (
    SELECT id, reached, calls, added, problems, started_at, true AS resumed FROM last WHERE finished_at IS NULL AND NOT $6::boolean
), begun AS (
    INSERT INTO archive_discoveries (bot, purpose, from_at, to_at, newest_first, reached)
    SELECT $1, $2, $3, $4, $5, CASE WHEN $5 THEN $4 ELSE $3 END WHERE NOT EXISTS (SELECT FROM broken)
    RETURNING id, reached, calls, added, problems, started_at, false AS resumed
)
SELECT * FROM broken UNION ALL SELECT * FROM begun
