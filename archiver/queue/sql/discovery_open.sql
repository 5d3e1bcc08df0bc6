-- Where the last reading from a moment on ends, if that was broken off. $1 bot, $2 purpose, $3 from, $4 newest first
SELECT to_at FROM (
    SELECT to_at, finished_at FROM archive_discoveries
    WHERE bot = $1 AND purpose = $2 AND from_at = $3 AND newest_first = $4 ORDER BY id DESC LIMIT 1) last
WHERE finished_at IS NULL
