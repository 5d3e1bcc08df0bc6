-- What is known of each day in [:first, :last] of these bots: by the latest account of the whole day, else the latest of a part of it;
-- and whether a later one of a part found something to be done.
SELECT DISTINCT ON (d.bot, d.day) d.bot, d.day, d.time_zone, d.whole, d.complete, d.counts, a.made_at, a.command, a.version, a.id AS account_id,
       EXISTS (SELECT FROM archive_account_days later
               WHERE later.bot = d.bot AND later.day = d.day AND later.account_id > d.account_id AND later.open_calls > 0) AS open_later
FROM archive_account_days d JOIN archive_accounts a ON a.id = d.account_id
WHERE d.bot = ANY (:bots::text[]) AND d.day BETWEEN :first AND :last
ORDER BY d.bot, d.day, d.whole DESC, d.account_id DESC
