-- Recorded files of sessions as their records have them (:files, a list of objects), in place of rows that have the same body, or key.
WITH given AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset(:files::jsonb) AS f (
        queue_id bigint, ordinal integer, source_name text, file_name text, store_key text, bytes bigint, sha256 text, media_type text,
        flags text[], seconds double precision, sample_rate integer, channels integer, archived_at timestamptz)
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
