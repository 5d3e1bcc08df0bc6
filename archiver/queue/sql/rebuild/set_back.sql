-- Forget what of the ledger is behind :size.
WITH entries AS (
    DELETE FROM archive_ledger WHERE seq >= :size::bigint
), tiles AS (
    DELETE FROM archive_ledger_tiles WHERE (tile + 1) * 256 > :size::bigint
)
DELETE FROM archive_ledger_batches WHERE last >= :size::bigint
