-- Let another one seal at once.
UPDATE archive_ledger_head SET sealer = NULL, leased_until = '-infinity' WHERE sealer = :sealer
