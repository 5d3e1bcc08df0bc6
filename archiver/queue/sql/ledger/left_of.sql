-- Whether anything up to this row waits still.
SELECT EXISTS (SELECT FROM archive_ledger_outbox WHERE id <= :id) OR EXISTS (SELECT FROM archive_ledger_batches WHERE published_at IS NULL) AS left
