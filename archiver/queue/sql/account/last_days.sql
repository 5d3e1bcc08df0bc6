-- The last day of each bot of which an account says that it is complete.
SELECT bot, max(day) FILTER (WHERE complete) AS complete FROM archive_account_days GROUP BY bot ORDER BY bot
