-- Up to when the calls of a bot have been read for a purpose; each reading begins where one before it ended, or earlier. Null: never.
-- $1 bot, $2 purpose
SELECT max(to_at) AS until FROM archive_discoveries WHERE bot = $1 AND purpose = $2 AND finished_at IS NOT NULL
