-- What waits to be sealed, in order.
SELECT id, uid, at, event, queue_id, body FROM archive_ledger_outbox ORDER BY id
