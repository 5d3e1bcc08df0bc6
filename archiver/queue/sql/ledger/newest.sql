-- The newest row that is visible now.
SELECT max(id) AS id FROM archive_ledger_outbox
