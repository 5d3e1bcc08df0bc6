-- The batch that the store may not have yet, without its records.
SELECT first, last, checkpoint, lines, sealed_at FROM archive_ledger_batches WHERE published_at IS NULL
