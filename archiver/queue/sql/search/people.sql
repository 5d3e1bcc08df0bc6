-- Sessions of these people, the latest calls first, from behind (:after_at, :after_id) on; the other options are those of
-- search/sessions. :caller and :callee are numbers or other names: found by :caller_key, the last seven digits, and equal as far as
-- both go back, without leading zeros (:caller_digits). :agent: the words of a name, an address or an ID. What is null folds away when
-- this is planned, and what is left is searched for in an index.
WITH page AS MATERIALIZED (
    SELECT c.queue_id, c.called_at AS at FROM archive_searchable c
    WHERE (:user_id::text IS NULL OR c.user_key = left(:user_id, 200) AND c.user_id = :user_id)
      AND (:caller::text IS NULL OR c.call ? 'caller' AND c.caller_key = :caller_key AND (
               lower(c.call ->> 'caller') = lower(:caller) OR least(length(c.caller_digits), length(:caller_digits)) > 0
               AND right(c.caller_digits, length(:caller_digits)) = right(:caller_digits, length(c.caller_digits))))
      AND (:callee::text IS NULL OR c.call ? 'callee' AND c.callee_key = :callee_key AND (
               lower(c.call ->> 'callee') = lower(:callee) OR least(length(c.callee_digits), length(:callee_digits)) > 0
               AND right(c.callee_digits, length(:callee_digits)) = right(:callee_digits, length(c.callee_digits))))
      AND (:agent::text IS NULL OR c.call ?| '{agent,consulted,joined}' AND c.people @@ phraseto_tsquery('simple', :agent))
      AND (:bots::text[] IS NULL OR c.bot = ANY (:bots)) AND (:states::text[] IS NULL OR c.state = ANY (:states))
      AND (:kinds::text[] IS NULL OR c.kind = ANY (:kinds))
      AND (:reasons::text[] IS NULL OR c.reason = ANY (:reasons) OR c.inner_reason = ANY (:reasons))
      AND c.called_at >= coalesce(:call_from::timestamptz, '0001-01-02Z') AND c.called_at < coalesce(:call_to::timestamptz, '9998-01-01Z')
      AND (:call_bots::text[] IS NULL OR (
          c.called_at >= coalesce((:call_starts::timestamptz[])[coalesce(array_position(:call_bots, c.bot), 1)], '-infinity')
          AND c.called_at < coalesce((:call_ends::timestamptz[])[coalesce(array_position(:call_bots, c.bot), 1)], 'infinity')))
      AND (c.called_at, c.queue_id) < (:after_at::timestamptz, :after_id::bigint)
    ORDER BY c.called_at DESC, c.queue_id DESC LIMIT :page
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
