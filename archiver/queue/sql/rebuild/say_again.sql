-- Let it be sealed once more what became of these sessions (arrays of one length, in order). One that is said to be reopened waited then.
INSERT INTO archive_ledger_outbox (event, queue_id, body)
SELECT g.event, q.id, CASE WHEN g.event = 'reopened' THEN jsonb_set(told.body, '{session,state}', '"pending"') ELSE told.body END
FROM unnest(:events::text[], :queue_ids::bigint[]) WITH ORDINALITY AS g (event, id, n)
JOIN archive_queue q ON q.id = g.id,
LATERAL (SELECT archive_ledger_body(q, archive_ledger_files(q.id), :by::text) AS body) told
ORDER BY g.n
