-- Sessions, the latest calls first, from behind (:after_at, :after_id) on: of these bots, kinds, states and reasons (null: any), whose
-- call began from :call_from on and before :call_to, where bots differ within their own bounds (see operate/find_sessions).
-- :acceptance is 'open' (failed, or found wrong by an account or by verify, and nobody accepted it), 'accepted' or null; with one of these
-- `reason` is what makes a session so: of what was found wrong, the first that nobody accepted.
-- Where anything is to be found the roll-up says: one index look-up for each bot, state and reason that there is. A session that
-- waits stands at its archive_date. Times that no calendar has are none of a call.
WITH keys AS MATERIALIZED (
    SELECT bot, state, reason, sum(sessions) > sum(accepted) AS some_open, sum(accepted) > 0 AS some_accepted
    FROM archive_counts
    WHERE (:bots::text[] IS NULL OR bot = ANY (:bots)) AND (:states::text[] IS NULL OR state = ANY (:states))
      AND (:kinds::text[] IS NULL OR kind = ANY (:kinds) OR kind = 'other')
    GROUP BY bot, state, reason
), wrong AS MATERIALIZED (
    -- By an account: archived ones. What was read by verify is wrong in whatever state its session is.
    SELECT q.queue_id, bool_or(NOT each.known) AS some_open,
           bool_or(each.known = (:acceptance::text = 'accepted') AND (:reasons::text[] IS NULL OR each.word = ANY (:reasons))) AS chosen,
           (array_agg(each.word ORDER BY each.known, f.source, e.place))[1] AS word
    FROM archive_findings f JOIN archive_sessions q ON q.queue_id = f.queue_id
    CROSS JOIN LATERAL jsonb_array_elements(f.findings) WITH ORDINALITY AS e (finding, place)
    CROSS JOIN LATERAL (
        SELECT q.accepted_at IS NOT NULL AND EXISTS (SELECT FROM jsonb_array_elements(f.accepted) a WHERE a = e.finding) AS known,
               coalesce(e.finding ->> 'mismatch', CASE e.finding ->> 'verdict' WHEN 'missing' THEN 'file_missing'
                                                  WHEN 'unreadable' THEN 'file_unreadable' ELSE e.finding ->> 'verdict' END) AS word) each
    WHERE :acceptance IS NOT NULL AND (f.source = 'verify' OR q.state = 'archived')
    GROUP BY q.queue_id
), found AS (
    SELECT e.* FROM keys k CROSS JOIN LATERAL (
        SELECT c.queue_id, c.called_at AS at FROM archive_searchable c
        WHERE c.finished_at IS NOT NULL AND (c.state <> 'archived' OR c.reason IS NOT NULL) AND c.bot = k.bot AND c.state = k.state AND c.counted_reason = k.reason
          AND c.called_at >= coalesce(:call_from::timestamptz, '0001-01-02Z') AND c.called_at < coalesce(:call_to::timestamptz, '9998-01-01Z')
          AND (c.called_at, c.queue_id) < (:after_at::timestamptz, :after_id::bigint)
          AND (:kinds::text[] IS NULL OR c.kind = ANY (:kinds))
          AND (:call_bots::text[] IS NULL OR (
              c.called_at >= coalesce((:call_starts::timestamptz[])[coalesce(array_position(:call_bots, c.bot), 1)], '-infinity')
              AND c.called_at < coalesce((:call_ends::timestamptz[])[coalesce(array_position(:call_bots, c.bot), 1)], 'infinity')))
          AND (:reasons::text[] IS NULL OR c.reason = ANY (:reasons) OR c.inner_reason = ANY (:reasons))
          AND CASE :acceptance::text WHEN 'open' THEN c.state = 'failed' AND c.accepted_at IS NULL WHEN 'accepted' THEN c.accepted_at IS NOT NULL ELSE true END
        ORDER BY c.called_at DESC, c.queue_id DESC LIMIT :page) e
    WHERE (k.state IN ('unavailable', 'failed', 'cancelled') OR k.state = 'archived' AND :reasons IS NOT NULL AND k.reason <> '')
      AND (:acceptance IS NULL OR k.state = 'failed')
      AND (:reasons IS NULL OR k.reason IN ('partial', 'kept') OR k.reason IN (SELECT left(r, 100) FROM unnest(:reasons) r))
      AND CASE :acceptance WHEN 'open' THEN k.some_open AND k.state = 'failed' WHEN 'accepted' THEN k.some_accepted ELSE true END
    UNION ALL
    SELECT e.* FROM (SELECT DISTINCT bot FROM keys WHERE state = 'archived') k CROSS JOIN LATERAL (
        SELECT c.queue_id, c.called_at AS at FROM archive_searchable c
        WHERE c.state = 'archived' AND c.bot = k.bot
          AND c.called_at >= coalesce(:call_from::timestamptz, '0001-01-02Z') AND c.called_at < coalesce(:call_to::timestamptz, '9998-01-01Z')
          AND (c.called_at, c.queue_id) < (:after_at::timestamptz, :after_id::bigint)
          AND (:kinds::text[] IS NULL OR c.kind = ANY (:kinds))
          AND (:call_bots::text[] IS NULL OR (
              c.called_at >= coalesce((:call_starts::timestamptz[])[coalesce(array_position(:call_bots, c.bot), 1)], '-infinity')
              AND c.called_at < coalesce((:call_ends::timestamptz[])[coalesce(array_position(:call_bots, c.bot), 1)], 'infinity')))
        ORDER BY c.called_at DESC, c.queue_id DESC LIMIT :page) e
    WHERE :acceptance IS NULL AND :reasons IS NULL
    UNION ALL
    -- Others that are open or accepted were found wrong; failed ones, too, where somebody had accepted them before.
    SELECT c.queue_id, c.called_at AS at
    FROM wrong f JOIN archive_searchable c ON c.queue_id = f.queue_id
    WHERE :acceptance IS NOT NULL
      AND (:bots IS NULL OR c.bot = ANY (:bots)) AND (:states IS NULL OR c.state = ANY (:states))
      AND f.some_open = (:acceptance = 'open') AND f.chosen AND (c.state <> 'failed' OR f.some_open AND c.accepted_at IS NOT NULL)
      AND c.called_at >= coalesce(:call_from::timestamptz, '0001-01-02Z') AND c.called_at < coalesce(:call_to::timestamptz, '9998-01-01Z')
      AND (c.called_at, c.queue_id) < (:after_at::timestamptz, :after_id::bigint)
      AND (:kinds::text[] IS NULL OR c.kind = ANY (:kinds))
      AND (:call_bots::text[] IS NULL OR (
          c.called_at >= coalesce((:call_starts::timestamptz[])[coalesce(array_position(:call_bots, c.bot), 1)], '-infinity')
          AND c.called_at < coalesce((:call_ends::timestamptz[])[coalesce(array_position(:call_bots, c.bot), 1)], 'infinity')))
    UNION ALL
    SELECT e.* FROM (SELECT DISTINCT bot FROM keys WHERE state = 'pending') k
    CROSS JOIN unnest('{recording,voicemail}'::text[]) each_kind (name)
    CROSS JOIN unnest('{high,normal,low}'::text[]) each_priority (name) CROSS JOIN LATERAL (
        SELECT c.queue_id, c.archive_date AS at FROM archive_searchable c
        WHERE c.finished_at IS NULL AND c.worker_id IS NULL AND c.bot = k.bot AND c.kind = each_kind.name AND c.priority = each_priority.name
          AND c.called_at >= coalesce(:call_from::timestamptz, '0001-01-02Z') AND c.called_at < coalesce(:call_to::timestamptz, '9998-01-01Z')
          AND (c.archive_date, c.queue_id) < (:after_at::timestamptz, :after_id::bigint)
          AND (:kinds::text[] IS NULL OR c.kind = ANY (:kinds))
          AND (:call_bots::text[] IS NULL OR (
              c.called_at >= coalesce((:call_starts::timestamptz[])[coalesce(array_position(:call_bots, c.bot), 1)], '-infinity')
              AND c.called_at < coalesce((:call_ends::timestamptz[])[coalesce(array_position(:call_bots, c.bot), 1)], 'infinity')))
          AND (:reasons::text[] IS NULL OR c.reason = ANY (:reasons) OR c.inner_reason = ANY (:reasons))
        ORDER BY c.archive_date DESC, c.queue_id DESC LIMIT :page) e
    WHERE :acceptance IS NULL
    UNION ALL
    SELECT c.queue_id, c.archive_date AS at FROM archive_searchable c
    WHERE :acceptance IS NULL AND c.worker_id IS NOT NULL AND c.state = 'claimed' AND (:states IS NULL OR c.state = ANY (:states))
      AND (:bots IS NULL OR c.bot = ANY (:bots))
      AND c.called_at >= coalesce(:call_from::timestamptz, '0001-01-02Z') AND c.called_at < coalesce(:call_to::timestamptz, '9998-01-01Z')
      AND (c.archive_date, c.queue_id) < (:after_at::timestamptz, :after_id::bigint)
      AND (:kinds::text[] IS NULL OR c.kind = ANY (:kinds))
      AND (:call_bots::text[] IS NULL OR (
          c.called_at >= coalesce((:call_starts::timestamptz[])[coalesce(array_position(:call_bots, c.bot), 1)], '-infinity')
          AND c.called_at < coalesce((:call_ends::timestamptz[])[coalesce(array_position(:call_bots, c.bot), 1)], 'infinity')))
      AND (:reasons::text[] IS NULL OR c.reason = ANY (:reasons) OR c.inner_reason = ANY (:reasons))
), page AS MATERIALIZED (
    SELECT queue_id, at FROM found ORDER BY at DESC, queue_id DESC LIMIT :page
)
SELECT s.queue_id, page.at, s.called_at, s.bot, s.session_id, s.kind, s.state,
       CASE WHEN wrong.queue_id IS NULL OR s.state = 'failed' AND (:acceptance = 'accepted' OR s.accepted_at IS NULL) THEN s.reason
            ELSE wrong.word END AS reason, s.inner_reason,
       CASE WHEN s.started_at BETWEEN '1900-01-01Z' AND '9998-01-01Z' THEN s.started_at END AS started_at,
       CASE WHEN s.ended_at BETWEEN '1900-01-01Z' AND '9998-01-01Z' THEN s.ended_at END AS ended_at, s.user_id, s.call,
       s.accepted_at, s.accepted_by, s.accept_reason, stored.files, stored.bytes, stored.seconds
FROM page JOIN archive_searchable s ON s.queue_id = page.queue_id LEFT JOIN wrong ON wrong.queue_id = page.queue_id
CROSS JOIN LATERAL (
    SELECT count(*) AS files, coalesce(sum(r.bytes), 0)::bigint AS bytes, sum(r.seconds) AS seconds
    FROM archived_recordings r WHERE r.queue_id = page.queue_id) stored
ORDER BY page.at DESC, page.queue_id DESC
