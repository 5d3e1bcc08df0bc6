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
), noted AS (
    INSERT INTO archive_events (queue_id, event, epoch, actor, data)
    SELECT mine.id, 'repaired', mine.epoch, :actor,
           jsonb_build_object('store_key', :store_key::text, 'from_key', :from_key::text, 'sha256', :sha256::text, 'source', :source::text)
    FROM mine JOIN moved ON moved.queue_id = mine.id
), recorded AS (
    INSERT INTO archive_ledger_outbox (event, queue_id, body)
    SELECT 'repaired', mine.id, archive_ledger_body(mine.session, archive_ledger_files(mine.id), :actor)
    FROM mine WHERE EXISTS (SELECT FROM moved) AND EXISTS (SELECT FROM archive_ledger_head)
)
SELECT queue_id FROM moved
