-- Begin the ledger: what ends from now on is written to the outbox. The caller has locked archive_queue against writes.
INSERT INTO archive_ledger_head (origin, public_key, signers, root) VALUES (:origin, :public_key, 0, :root) ON CONFLICT (one) DO NOTHING
