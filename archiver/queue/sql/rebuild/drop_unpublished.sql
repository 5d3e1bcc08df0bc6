-- A batch that was never published, and never will be: its place is another one's.
DELETE FROM archive_ledger_batches WHERE published_at IS NULL
