-- A recorded file is whole again: under its own key, or under another one beside what was found under it. Nothing is written if
-- the session has moved meanwhile, a worker holds it, or the row is not the one that was read.
WITH mine AS MATERIALIZED (
    SELECT q.id, q.epoch, q AS session FROM archive_queue q WHERE id = :queue_id AND epoch = :epoch AND worker_id IS NULL FOR UPDATE
), moved AS (
    UPDATE archived_recordings r SET store_key = :store_key, file_name = :file_name
    FROM mine WHERE r.queue_id = mine.id AND r.store_key = :from_key AND r.sha256 = :sha256
    RETURNING r.*
), right_again AS (
    -- What an account found wrong with this file is no longer so.
    UPDATE archive_findings f SET findings = coalesce(
        (SELECT jsonb_agg(e) FROM jsonb_array_elements(f.findings) e
         WHERE NOT (e ->> 'store_key' = :from_key AND e ->> 'mismatch' IN ('file_missing', 'file_unreadable', 'file_size'))), '[]')
    FROM moved WHERE f.queue_id = moved.queue_id AND f.source = 'account'
), still AS (
    -- Nor what verify found: what is left is what else is known to be wrong with the session.
    SELECT jsonb_agg(e) AS findings, coalesce(bool_or(e ->> 'verdict' <> 'unreadable'), false) AS wrong
    FROM archive_findings f, jsonb_array_elements(f.findings) e
    WHERE f.queue_id = :queue_id AND f.source = 'verify' AND NOT e ->> 'store_key' = :from_key
), fewer AS (
    UPDATE archive_findings f SET findings = still.findings FROM still, moved
    WHERE f.queue_id = moved.queue_id AND f.source = 'verify' AND still.findings IS NOT NULL
), gone AS (
    DELETE FROM archive_findings f USING still, moved
    WHERE f.queue_id = moved.queue_id AND f.source = 'verify' AND still.findings IS NULL
), told AS (
    -- What its history has from its row is to stay as it was.
    UPDATE archive_events e SET lines = (
        SELECT jsonb_agg(CASE WHEN l.line ->> 0 = 'stored' AND l.line ->> 3 = before.ordinal::text AND starts_with(:sha256, l.line ->> 4)
                              THEN jsonb_build_array(l.line -> 0, l.line -> 1, (archive_ledger_file(before) - 'archived_at') || (l.line -> 2))
                              ELSE l.line END ORDER BY l.place)
        FROM jsonb_array_elements(e.lines) WITH ORDINALITY AS l (line, place))
    FROM mine JOIN archived_recordings before ON before.queue_id = mine.id AND before.store_key = :from_key AND before.sha256 = :sha256
    WHERE e.queue_id = mine.id AND e.lines IS NOT NULL
      AND EXISTS (SELECT FROM jsonb_array_elements(e.lines) l (line)
                  WHERE l.line ->> 0 = 'stored' AND l.line ->> 3 = before.ordinal::text AND starts_with(:sha256, l.line ->> 4))
), noted AS (
    INSERT INTO archive_events (queue_id, event, epoch, actor, data)
    SELECT mine.id, 'repaired', mine.epoch, :actor,
           jsonb_build_object('store_key', :store_key::text, 'from_key', :from_key::text, 'sha256', :sha256::text, 'source', :source::text)
    FROM mine JOIN moved ON moved.queue_id = mine.id
), recorded AS (
    INSERT INTO archive_ledger_outbox (event, queue_id, body)
    -- For whoever reads the ledger nothing is wrong with a session that was repaired, until it is said again.
    SELECT e.event, mine.id, archive_ledger_body(mine.session, archive_ledger_files(mine.id), :actor)
    FROM mine, still, (VALUES (1, 'repaired'), (2, 'damaged')) AS e (place, event)
    WHERE EXISTS (SELECT FROM moved) AND EXISTS (SELECT FROM archive_ledger_head) AND (e.event = 'repaired' OR still.wrong)
    ORDER BY e.place
)
SELECT queue_id FROM moved
