-- What the ledger has of these sessions: their newest entry among the first :size, and what of it the database knows; whether anything newer is
-- there (an entry, or a row that waits to be sealed).
SELECT chosen.queue_id, newest.seq, newest.edition,
       EXISTS (SELECT FROM archive_ledger l WHERE l.queue_id = chosen.queue_id AND l.seq >= :size)
       OR chosen.queue_id IN (SELECT o.queue_id FROM archive_ledger_outbox o WHERE o.queue_id = ANY (:queue_ids)) AS newer
FROM unnest(:queue_ids::bigint[]) AS chosen (queue_id)
LEFT JOIN LATERAL (
    -- A session has few entries; never the ledger from its end.
    SELECT own.seq, own.edition
    FROM (SELECT l.seq, l.edition FROM archive_ledger l WHERE l.queue_id = chosen.queue_id AND l.seq < :size OFFSET 0) own
    ORDER BY own.seq DESC LIMIT 1) newest ON true
