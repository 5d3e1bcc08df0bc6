-- Sessions, a page behind row :after, that entries behind :size are about; `told`: earlier ones are, too.
SELECT q.id, q.bot, q.session_id, q.kind, q.state, EXISTS (SELECT FROM archive_ledger e WHERE e.queue_id = q.id AND e.seq < :size::bigint) AS told
FROM archive_queue q
WHERE q.id > :after AND EXISTS (SELECT FROM archive_ledger l WHERE l.queue_id = q.id AND l.seq >= :size::bigint)
ORDER BY q.id LIMIT :page
