-- What is wrong with the files of a session, which the statement before has locked, all of which were read: in place of what was known.
-- Sealed, where there is a ledger, is `damaged`, when a file is wrong that was not known to be, and `repaired`, when none is any more.
WITH before AS MATERIALIZED (
    SELECT e ->> 'store_key' AS store_key FROM archive_findings f, jsonb_array_elements(f.findings) e
    WHERE f.queue_id = :queue_id AND f.source = 'verify' AND e ->> 'verdict' <> 'unreadable'
), now AS MATERIALIZED (
    SELECT e ->> 'store_key' AS store_key FROM jsonb_array_elements(:findings::jsonb) e WHERE e ->> 'verdict' <> 'unreadable'
), kept AS (
    INSERT INTO archive_findings (queue_id, source, found_at, found_by, findings)
    SELECT :queue_id, 'verify', clock_timestamp(), :actor, :findings::jsonb WHERE :findings::jsonb <> '[]'
    ON CONFLICT (queue_id, source) DO UPDATE
    SET found_at = excluded.found_at, found_by = excluded.found_by, findings = excluded.findings
), removed AS (
    DELETE FROM archive_findings WHERE queue_id = :queue_id AND source = 'verify' AND :findings::jsonb = '[]'
), recorded AS (
    INSERT INTO archive_ledger_outbox (event, queue_id, body)
    SELECT e.event, q.id, archive_ledger_body(q, archive_ledger_files(q.id), :actor)
    FROM archive_queue q CROSS JOIN LATERAL (
        SELECT 'damaged' AS event WHERE EXISTS (SELECT store_key FROM now EXCEPT SELECT store_key FROM before)
        UNION ALL SELECT 'repaired' WHERE EXISTS (SELECT FROM before) AND NOT EXISTS (SELECT FROM now)) e
    WHERE q.id = :queue_id AND EXISTS (SELECT FROM archive_ledger_head)
)
SELECT count(*) AS wrong FROM now
