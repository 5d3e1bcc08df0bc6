-- Accounts are numbered on from the last one that the ledger has, or that was ever given here.
SELECT setval(sequence, greatest(:last::bigint, (SELECT max(id) FROM archive_accounts), pg_sequence_last_value(sequence)))
FROM CAST(pg_get_serial_sequence('archive_accounts', 'id') AS regclass) AS sequence
WHERE :last::bigint > 0
