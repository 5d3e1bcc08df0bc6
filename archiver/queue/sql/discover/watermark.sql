-- Up to when the calls of a bot have been read for a purpose; each reading begins where one before it ended, or earlier. Null:
-- never.
SELECT max(to_at) AS until FROM archive_discoveries WHERE bot = :bot AND purpose = :purpose AND finished_at IS NOT NULL
