-- Sessions, the latest calls first, from behind (:after_at, :after_id) on: of these bots, kinds, states and reasons (null: any), whose
-- call began from :call_from on and before :call_to, where bots differ within their own bounds (see operate/find_sessions).
-- :acceptance is 'open' (failed, or archived and found wrong, and nobody accepted it), 'accepted' or null.
-- Where anything is to be found the roll-up says: one index look-up for each bot, state and reason that there is. A session that
-- waits stands at its archive_date. Times that no calendar has are none of a call.
WITH keys AS MATERIALIZED (
    SELECT bot, state, reason, sum(sessions) > sum(accepted) AS some_open, sum(accepted) > 0 AS some_accepted
    FROM archive_counts
    WHERE (:bots::text[] IS NULL OR bot = ANY (:bots)) AND (:states::text[] IS NULL OR state = ANY (:states))
      AND (:kinds::text[] IS NULL OR kind = ANY (:kinds) OR kind = 'other')
    GROUP BY bot, state, reason
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
    -- Archived ones that are open or accepted were found wrong.
    SELECT c.queue_id, c.called_at AS at
    FROM archive_mismatches f JOIN archive_searchable c ON c.queue_id = f.queue_id
    WHERE :acceptance IS NOT NULL
      AND (:bots IS NULL OR c.bot = ANY (:bots)) AND (:states IS NULL OR c.state = ANY (:states))
      AND f.all_accepted = (:acceptance = 'accepted')
      AND (:reasons IS NULL OR jsonb_path_query_array(f.findings, '$[*].mismatch') ?| :reasons)
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
SELECT s.queue_id, page.at, s.called_at, s.bot, s.session_id, s.kind, s.state, s.reason, s.inner_reason,
       CASE WHEN s.started_at BETWEEN '1900-01-01Z' AND '9998-01-01Z' THEN s.started_at END AS started_at,
       CASE WHEN s.ended_at BETWEEN '1900-01-01Z' AND '9998-01-01Z' THEN s.ended_at END AS ended_at, s.user_id, s.call,
       s.accepted_at, s.accepted_by, s.accept_reason, stored.files, stored.bytes, stored.seconds
FROM page JOIN archive_searchable s ON s.queue_id = page.queue_id
CROSS JOIN LATERAL (
    SELECT count(*) AS files, coalesce(sum(r.bytes), 0)::bigint AS bytes, sum(r.seconds) AS seconds
    FROM archived_recordings r WHERE r.queue_id = page.queue_id) stored
ORDER BY page.at DESC, page.queue_id DESC
