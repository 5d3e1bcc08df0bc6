-- Batches that the store has (arrays of one length).
INSERT INTO archive_ledger_batches (first, last, checkpoint, published_at)
SELECT first, last, checkpoint, clock_timestamp() FROM unnest(:firsts::bigint[], :lasts::bigint[], :checkpoints::bytea[]) AS b (first, last, checkpoint)
ON CONFLICT (first) DO UPDATE SET last = excluded.last, checkpoint = excluded.checkpoint, published_at = excluded.published_at,
    signature = NULL, lines = NULL, object_keys = NULL, objects = NULL
