-- Published segments that have entries from :first to :last, behind the one that begins at :after, in order.
SELECT b.first, b.last FROM archive_ledger_batches b
WHERE b.published_at IS NOT NULL AND b.first > :after AND b.first <= :last AND b.last >= :first
  AND b.first >= coalesce((SELECT max(c.first) FROM archive_ledger_batches c WHERE c.first <= :first), 0)
ORDER BY b.first LIMIT :page
