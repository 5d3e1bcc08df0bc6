-- The last day of each bot that is complete: the latest account of the whole day says so, and no later one of a part of it found
-- something to be done.
SELECT d.bot, max(d.day) FILTER (
           WHERE d.complete AND NOT EXISTS (SELECT FROM archive_account_days later
                                            WHERE later.bot = d.bot AND later.day = d.day AND later.account_id > d.account_id
                                              AND (later.whole OR later.open_calls > 0))) AS complete
FROM archive_account_days d GROUP BY d.bot ORDER BY d.bot
