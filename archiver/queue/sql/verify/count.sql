-- How many of the next :page recorded files are chosen, and where they end: all as in verify/page.
WITH page AS MATERIALIZED (
    SELECT r.queue_id, r.store_key, r.bot, r.kind, r.session_id, r.bytes, r.sha256, coalesce(r.verified_at, r.archived_at) AS at
    FROM archived_recordings r
    WHERE (coalesce(r.verified_at, r.archived_at), r.queue_id, r.store_key)
              > (:after::text::timestamp AT TIME ZONE 'UTC', :after_id::bigint, :after_key::text)
      AND coalesce(r.verified_at, r.archived_at) <= coalesce(:until::timestamptz, 'infinity')
      AND (NOT :ahead::boolean OR coalesce(r.verified_at, r.archived_at) > statement_timestamp())
    ORDER BY coalesce(r.verified_at, r.archived_at), r.queue_id, r.store_key LIMIT :page
), last AS (
    SELECT (at AT TIME ZONE 'UTC')::text AS last_at, queue_id AS last_id, store_key AS last_key
    FROM page ORDER BY at DESC, queue_id DESC, store_key DESC LIMIT 1
), chosen AS (
    SELECT page.* FROM page
    LEFT JOIN LATERAL (SELECT s.called_at, coalesce(array_position(:call_bots::text[], s.bot), 1) AS place
                       FROM archive_sessions s WHERE s.queue_id = page.queue_id LIMIT 1) c ON :called::boolean
    WHERE page.bot = coalesce(:bot, page.bot) AND page.kind = coalesce(:kind, page.kind)
      AND (:prefix::text IS NULL OR starts_with(page.store_key, :prefix))
      AND (NOT :called OR c.called_at >= coalesce(:call_from::timestamptz, '-infinity') AND c.called_at < coalesce(:call_to::timestamptz, 'infinity')
           AND (:call_bots IS NULL OR c.called_at >= coalesce((:call_starts::timestamptz[])[c.place], '-infinity')
                                      AND c.called_at < coalesce((:call_ends::timestamptz[])[c.place], 'infinity')))
)
SELECT last.last_at, last.last_id, last.last_key, (SELECT count(*) FROM chosen) AS files FROM last
