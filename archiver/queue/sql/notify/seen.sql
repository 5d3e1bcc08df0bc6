-- These accounts were looked through, too; those that are not among the latest are forgotten.
UPDATE archive_notifier SET accounts_seen = ARRAY(
    SELECT a.id FROM (SELECT id FROM archive_accounts ORDER BY id DESC LIMIT :accounts::integer) a
    WHERE a.id = ANY (accounts_seen) OR a.id = ANY (:ids::bigint[]) ORDER BY a.id)
