-- What became of the given calls of a bot (arrays of one length): a row for each that is in the queue, with its files; `n` is the
-- place of the call in the arrays, from 1. Times are bounded to what Python can hold: other programs may have written others.
-- `started_at` and `ended_at` are those of listings.
SELECT g.n, q.id AS queue_id, q.session_id, q.kind, q.state, q.reason, q.detail, least(greatest(q.run_at, '1970-01-01Z'), '9998-01-01Z') AS run_at,
       q.first_asked_at, q.last_asked_at, q.finished_at, q.calls, q.files, q.call ->> 'unanswered' AS unanswered,
       CASE WHEN q.listed_at IS NOT NULL THEN q.started_at END AS started_at,
       CASE WHEN q.listed_at IS NOT NULL THEN q.ended_at END AS ended_at,
       q.accepted_at, q.accepted_by, q.accept_reason,
       CASE WHEN q.accepted_at IS NOT NULL THEN coalesce((SELECT f.accepted FROM archive_findings f
                                                          WHERE f.queue_id = q.id AND f.source = 'account'), '[]') END AS accepted,
       (SELECT coalesce(jsonb_agg(jsonb_build_object('store_key', r.store_key, 'bytes', r.bytes, 'seconds', r.seconds,
                                                     'ordinal', r.ordinal, 'media_type', r.media_type)
                                  ORDER BY r.ordinal, r.store_key), '[]')
        FROM archived_recordings r WHERE r.queue_id = q.id) AS stored
FROM unnest(:session_ids::text[], :kinds::text[]) WITH ORDINALITY AS g (session_id, kind, n)
JOIN archive_queue q ON q.session_id = archive_short(g.session_id) AND q.kind = g.kind
WHERE q.session_id = ANY (ARRAY(SELECT archive_short(i) FROM unnest(:session_ids::text[]) i)) AND q.bot = :bot
ORDER BY g.n
