-- The batch that the store does not have yet, if there is one.
SELECT first, last, checkpoint, signature, lines, object_keys, objects, again FROM archive_ledger_batches WHERE published_at IS NULL
