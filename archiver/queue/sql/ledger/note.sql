-- Let something that is about no session be sealed, where there is a ledger.
INSERT INTO archive_ledger_outbox (event, body) SELECT :event, :body::jsonb WHERE EXISTS (SELECT FROM archive_ledger_head) RETURNING id
