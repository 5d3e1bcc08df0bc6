-- The store has this batch: its bytes can go. Said twice, nothing changes.
WITH done AS (
    UPDATE archive_ledger_batches SET published_at = clock_timestamp(), signature = NULL, lines = NULL, object_keys = NULL, objects = NULL
    WHERE first = :first AND published_at IS NULL
    RETURNING last
)
UPDATE archive_ledger_head h SET published = done.last + 1, published_at = clock_timestamp() FROM done
