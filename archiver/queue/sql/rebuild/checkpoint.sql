-- The checkpoint of so many entries, if a batch ended there.
SELECT checkpoint FROM archive_ledger_batches WHERE last = :size::bigint - 1
