-- The ledger as the database knows it, and the moment of this snapshot; of a ledger that is not begun the moment alone.
SELECT now() AS now, h.origin, h.public_key, h.size, h.root, h.published
FROM (SELECT) one LEFT JOIN archive_ledger_head h ON true
