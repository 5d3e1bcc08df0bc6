-- The ledger as the database knows it, and what waits: no row before it is begun.
SELECT h.origin, h.public_key, h.signers, h.size, h.root, h.frontier, h.published, h.published_at, h.begun_at, h.adopt_before IS NOT NULL AS adopts,
       h.given_up
FROM archive_ledger_head h
