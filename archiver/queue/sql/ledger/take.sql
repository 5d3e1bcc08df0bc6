-- Take what has waited longest, at most so many rows and about so many bytes, with those of the sessions' history: by deleting it, as the
-- order in which rows become visible is not that of their numbers.
WITH first_ones AS MATERIALIZED (
    SELECT id, sum(octet_length(body::text) + coalesce(told.bytes, 0)) OVER (ORDER BY id) AS bytes
    FROM (SELECT id, queue_id, body FROM archive_ledger_outbox ORDER BY id LIMIT :max_rows) waiting,
         LATERAL (SELECT sum(octet_length(e.data::text) + coalesce(octet_length(e.lines::text), 0)) AS bytes FROM archive_events e WHERE e.queue_id = waiting.queue_id) told
), taken AS (
    DELETE FROM archive_ledger_outbox
    WHERE id = ANY (ARRAY(SELECT id FROM first_ones WHERE bytes <= :max_bytes UNION SELECT min(id) FROM first_ones))
    RETURNING id, uid, at, event, queue_id, body
)
SELECT * FROM taken ORDER BY id
