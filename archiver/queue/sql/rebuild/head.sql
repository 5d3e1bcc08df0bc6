-- The ledger as the store has it. Where the database had none, what it has ended without it is adopted, with :adopts.
INSERT INTO archive_ledger_head (origin, public_key, signers, size, root, frontier, published, published_at, given_up, adopt_before)
VALUES (:origin, :public_key, :signers, :size, :root, :frontier, :size, clock_timestamp(), :given_up, CASE WHEN :adopts THEN 'infinity'::timestamptz END)
ON CONFLICT (one) DO UPDATE SET
    public_key = excluded.public_key, signers = excluded.signers, size = excluded.size, root = excluded.root, frontier = excluded.frontier,
    published = excluded.published, published_at = excluded.published_at,
    given_up = greatest(archive_ledger_head.given_up, excluded.given_up)
