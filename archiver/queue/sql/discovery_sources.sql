-- By what a bot's calls have been listed so far. $1 bot
SELECT DISTINCT source FROM archive_discoveries WHERE bot = $1 AND source IS NOT NULL
