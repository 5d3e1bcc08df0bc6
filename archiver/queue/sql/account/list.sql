-- The accounts that were made last, of :bot (null: of any), latest first.
SELECT a.id, a.made_at, a.made_by, a.command, a.version, a.from_at, a.to_at, a.complete, a.counts, a.problems, a.failed_bots,
       (SELECT count(*) FROM archive_account_days d WHERE d.account_id = a.id AND NOT d.complete AND d.whole) AS open_days
FROM archive_accounts a
WHERE :bot::text IS NULL OR EXISTS (SELECT FROM archive_account_days d WHERE d.account_id = a.id AND d.bot = :bot) OR a.failed_bots ? :bot
ORDER BY a.id DESC LIMIT :max_rows
