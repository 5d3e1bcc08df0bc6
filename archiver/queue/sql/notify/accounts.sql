-- The first :most of the latest accounts (:accounts) that nobody has looked through. Holds the lock of who looks.
SELECT a.id FROM (SELECT id FROM archive_accounts ORDER BY id DESC LIMIT :accounts::integer) a, (SELECT accounts_seen FROM archive_notifier FOR UPDATE) n
WHERE a.id <> ALL (n.accounts_seen) ORDER BY a.id LIMIT :most::integer
