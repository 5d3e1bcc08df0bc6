-- The sources that have listed a bot's calls so far.
SELECT DISTINCT source FROM archive_discoveries WHERE bot = :bot AND source IS NOT NULL
