-- What was found of recorded files, whose sessions are locked by the statement before: of a file that is recorded no more, nothing.
-- What was read is marked as read. A file that is equal loses what was known of it, one that is not gets it; `unreadable` says nothing
-- of a file that is known to be wrong. Sealed, where there is a ledger, are `damaged`, when a file is found wrong that was not known to
-- be, and `repaired`, when the last one that was known to be wrong is equal again. `news`: files that were not known to be wrong in this way.
WITH told AS MATERIALIZED (
    SELECT t.* FROM unnest(:queue_ids::bigint[], :store_keys::text[], :sha256s::text[], :verdicts::text[], :messages::text[])
                    AS t (queue_id, store_key, sha256, verdict, message)
    WHERE EXISTS (SELECT FROM archived_recordings r
                  WHERE r.queue_id = t.queue_id AND r.store_key = t.store_key AND r.sha256 = t.sha256)
), marked AS (
    UPDATE archived_recordings r SET verified_at = clock_timestamp() FROM told t
    WHERE r.queue_id = t.queue_id AND r.store_key = t.store_key AND t.verdict <> 'unreadable'
), known AS MATERIALIZED (
    SELECT f.queue_id, e ->> 'store_key' AS store_key, e AS finding, e ->> 'verdict' <> 'unreadable' AS wrong
    FROM archive_findings f, jsonb_array_elements(f.findings) e
    WHERE f.source = 'verify' AND f.queue_id = ANY (:queue_ids)
), found AS MATERIALIZED (
    SELECT t.queue_id, t.store_key, t.verdict <> 'unreadable' AS wrong,
           jsonb_build_object('store_key', t.store_key, 'verdict', t.verdict, 'message', t.message) AS finding
    FROM told t
    WHERE t.verdict <> 'equal' AND NOT (t.verdict = 'unreadable' AND EXISTS (
        SELECT FROM known k WHERE k.queue_id = t.queue_id AND k.store_key = t.store_key AND k.wrong))
), stays AS MATERIALIZED (
    SELECT k.queue_id, k.store_key, k.finding, k.wrong FROM known k
    WHERE NOT EXISTS (SELECT FROM told t WHERE t.queue_id = k.queue_id AND t.store_key = k.store_key
                                           AND NOT (t.verdict = 'unreadable' AND k.wrong))
), after AS MATERIALIZED (
    SELECT s.queue_id, now.findings, now.wrong,
           EXISTS (SELECT FROM found n WHERE n.queue_id = s.queue_id AND n.wrong AND NOT EXISTS (
               SELECT FROM known k WHERE k.queue_id = n.queue_id AND k.store_key = n.store_key AND k.wrong)) AS damaged,
           EXISTS (SELECT FROM known k WHERE k.queue_id = s.queue_id AND k.wrong) AS was_wrong
    FROM (SELECT queue_id FROM known UNION SELECT queue_id FROM found) s
    CROSS JOIN LATERAL (
        SELECT jsonb_agg(a.finding ORDER BY a.store_key) AS findings, coalesce(bool_or(a.wrong), false) AS wrong
        FROM (SELECT queue_id, store_key, finding, wrong FROM stays UNION ALL SELECT queue_id, store_key, finding, wrong FROM found) a
        WHERE a.queue_id = s.queue_id) now
    WHERE EXISTS (SELECT FROM told t WHERE t.queue_id = s.queue_id)
), kept AS (
    INSERT INTO archive_findings (queue_id, source, found_at, found_by, findings)
    SELECT queue_id, 'verify', clock_timestamp(), :actor, findings FROM after WHERE findings IS NOT NULL
    ON CONFLICT (queue_id, source) DO UPDATE
    SET found_at = excluded.found_at, found_by = excluded.found_by, findings = excluded.findings
), removed AS (
    DELETE FROM archive_findings f USING after a WHERE f.queue_id = a.queue_id AND f.source = 'verify' AND a.findings IS NULL
), recorded AS (
    INSERT INTO archive_ledger_outbox (event, queue_id, body)
    SELECT CASE WHEN a.damaged THEN 'damaged' ELSE 'repaired' END, q.id, archive_ledger_body(q, archive_ledger_files(q.id), :actor)
    FROM after a JOIN archive_queue q ON q.id = a.queue_id
    WHERE (a.damaged OR a.was_wrong AND NOT a.wrong) AND EXISTS (SELECT FROM archive_ledger_head)
    ORDER BY q.id
)
SELECT (SELECT count(*) FROM told) AS told,
       (SELECT count(*) FROM found n WHERE NOT EXISTS (
            SELECT FROM known k WHERE k.queue_id = n.queue_id AND k.finding = n.finding)) AS news
