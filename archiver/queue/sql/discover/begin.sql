-- Go on with the last reading of the same stretch of time if it was interrupted, unless :afresh, or begin one.
WITH last AS (
    SELECT * FROM archive_discoveries
    WHERE bot = :bot AND purpose = :purpose AND from_at = :start AND to_at = :end AND newest_first = :newest_first
    ORDER BY id DESC LIMIT 1
), interrupted AS (
    SELECT id, reached, calls, added, problems, started_at, true AS resumed FROM last
    WHERE finished_at IS NULL AND NOT :afresh::boolean
), begun AS (
    INSERT INTO archive_discoveries (bot, purpose, from_at, to_at, newest_first, reached)
    SELECT :bot, :purpose, :start, :end, :newest_first, CASE WHEN :newest_first THEN :end ELSE :start END
    WHERE NOT EXISTS (SELECT FROM interrupted)
    RETURNING id, reached, calls, added, problems, started_at, false AS resumed
)
SELECT * FROM interrupted UNION ALL SELECT * FROM begun
