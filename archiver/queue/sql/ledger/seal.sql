-- A batch, with all its bytes, and the head moved on (arrays of one length, one entry each). The caller holds the head.
WITH batch AS (
    INSERT INTO archive_ledger_batches (first, last, checkpoint, signature, lines, object_keys, objects, again)
    VALUES (:first, :last, :checkpoint, :signature, :lines, :object_keys, :objects, :again)
), entries AS (
    INSERT INTO archive_ledger (seq, queue_id, edition, salt)
    SELECT :first + n - 1, queue_id, edition, salt
    FROM unnest(:queue_ids::bigint[], :editions::integer[], :salts::bytea[]) WITH ORDINALITY AS e (queue_id, edition, salt, n)
), whole_tiles AS (
    INSERT INTO archive_ledger_tiles (tile, root) SELECT * FROM unnest(:tiles::bigint[], :tile_roots::bytea[])
)
UPDATE archive_ledger_head
SET size = :last + 1, root = :root, frontier = :frontier, public_key = :public_key, signers = :signers
