-- Which sessions the entries from :first to :last are about: those behind row :after, in the order of their rows.
SELECT DISTINCT queue_id FROM archive_ledger
WHERE seq BETWEEN :first AND :last AND queue_id > :after ORDER BY queue_id LIMIT :page
