-- Where the last reading from :start on ends, if it was interrupted.
SELECT to_at FROM (
    SELECT to_at, finished_at FROM archive_discoveries
    WHERE bot = :bot AND purpose = :purpose AND from_at = :start AND newest_first = :newest_first ORDER BY id DESC LIMIT 1) last
WHERE finished_at IS NULL
