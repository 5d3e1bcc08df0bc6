-- A body that was once refused is a recording after all: it is recorded as a file of its failed session, which stays as it is.
WITH mine AS MATERIALIZED (
    SELECT q.*, q AS session FROM archive_queue q WHERE id = :queue_id AND epoch = :epoch AND state = 'failed' AND worker_id IS NULL FOR UPDATE
), added AS (
    INSERT INTO archived_recordings (bot, session_id, kind, ordinal, file_name, store_key, bytes, sha256, media_type,
                                     source_name, flags, seconds, sample_rate, channels, queue_id, archived_at)
    SELECT m.bot, m.session_id, m.kind, f.ordinal, f.file_name, f.store_key, f.bytes, f.sha256, f.media_type,
           f.source_name, f.flags, f.seconds, f.sample_rate, f.channels, m.id, clock_timestamp()
    FROM mine m, jsonb_to_record(:file::jsonb) AS f (ordinal integer, file_name text, store_key text, bytes bigint, sha256 text,
                                                     media_type text, source_name text, flags text[], seconds double precision,
                                                     sample_rate integer, channels integer)
    ON CONFLICT (queue_id, store_key) DO NOTHING
    RETURNING *
), still AS (
    SELECT coalesce(bool_or(e ->> 'verdict' <> 'unreadable'), false) AS wrong
    FROM archive_findings f, jsonb_array_elements(f.findings) e WHERE f.queue_id = :queue_id AND f.source = 'verify'
), noted AS (
    INSERT INTO archive_events (queue_id, event, epoch, actor, data)
    SELECT mine.id, 'repaired', mine.epoch, :actor,
           jsonb_build_object('store_key', a.store_key, 'from_key', :from_key::text, 'sha256', a.sha256, 'source', 'quarantine')
    FROM mine JOIN added a ON a.queue_id = mine.id
), recorded AS (
    INSERT INTO archive_ledger_outbox (event, queue_id, body)
    -- For whoever reads the ledger nothing is wrong with a session that was repaired, until it is said again.
    SELECT e.event, mine.id, archive_ledger_body(mine.session, archive_ledger_files(mine.id), :actor)
    FROM mine, still, (VALUES (1, 'repaired'), (2, 'damaged')) AS e (place, event)
    WHERE EXISTS (SELECT FROM added) AND EXISTS (SELECT FROM archive_ledger_head) AND (e.event = 'repaired' OR still.wrong)
    ORDER BY e.place
)
SELECT queue_id FROM added
