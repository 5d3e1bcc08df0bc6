-- Recorded files of sessions as their records have them (:files, a list of objects), in place of rows that have the same body, or key.
WITH given AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset(:files::jsonb) AS f (
        queue_id bigint, ordinal integer, source_name text, file_name text, store_key text, bytes bigint, sha256 text, media_type text,
        flags text[], seconds double precision, sample_rate integer, channels integer, archived_at timestamptz)
), told AS (
    -- What the history has from rows that others replace is to stay as it was.
    UPDATE archive_events e SET lines = (
        SELECT jsonb_agg(CASE WHEN r.queue_id IS NULL THEN l.line
                              ELSE jsonb_build_array(l.line -> 0, l.line -> 1, (archive_ledger_file(r) - 'archived_at') || (l.line -> 2)) END
                         ORDER BY l.place)
        FROM jsonb_array_elements(e.lines) WITH ORDINALITY AS l (line, place)
        LEFT JOIN LATERAL (
            SELECT * FROM archived_recordings f
            WHERE l.line ->> 0 = 'stored' AND f.queue_id = e.queue_id AND f.ordinal::text = l.line ->> 3
              AND starts_with(f.sha256, l.line ->> 4)
            ORDER BY f.archived_at, f.store_key LIMIT 1) r ON true)
    WHERE e.queue_id = ANY (ARRAY(SELECT queue_id FROM given)) AND e.lines IS NOT NULL
      AND EXISTS (SELECT FROM jsonb_array_elements(e.lines) l (line) WHERE l.line ->> 0 = 'stored' AND l.line -> 3 IS NOT NULL)
), moved AS (
    DELETE FROM archived_recordings r USING given g
    WHERE r.queue_id = g.queue_id AND r.ordinal = g.ordinal AND r.sha256 = g.sha256 AND r.store_key <> g.store_key
)
INSERT INTO archived_recordings (bot, session_id, kind, ordinal, source_name, file_name, store_key, bytes, sha256, media_type, flags, seconds,
                                 sample_rate, channels, archived_at, queue_id)
SELECT q.bot, q.session_id, q.kind, g.ordinal, coalesce(g.source_name, g.file_name), g.file_name, g.store_key, g.bytes, g.sha256,
       g.media_type, coalesce(g.flags, '{}'), g.seconds, g.sample_rate, g.channels, coalesce(g.archived_at, clock_timestamp()), g.queue_id
FROM given g JOIN archive_queue q ON q.id = g.queue_id
ON CONFLICT (queue_id, store_key) DO UPDATE SET
    ordinal = excluded.ordinal, source_name = excluded.source_name, file_name = excluded.file_name, bytes = excluded.bytes,
    sha256 = excluded.sha256, media_type = excluded.media_type, flags = excluded.flags, seconds = excluded.seconds,
    sample_rate = excluded.sample_rate, channels = excluded.channels, archived_at = excluded.archived_at
