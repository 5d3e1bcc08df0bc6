-- Sessions of these bots that somebody has to see to: failed ones, and archived ones that an account found wrong, that nobody accepted.
-- Not those of low priority (a backfill has its own end), nor what was refused when it was inserted (no call was ever made of it), nor
-- those in :except_bots, :except_ids and :except_kinds (of one length), which an account names already.
WITH named AS MATERIALIZED (
    SELECT g.bot, g.session_id, g.kind FROM unnest(:except_bots::text[], :except_ids::text[], :except_kinds::text[]) AS g (bot, session_id, kind)
)
SELECT (SELECT count(*) FROM archive_queue q
        WHERE q.state = 'failed' AND q.finished_at IS NOT NULL AND q.accepted_at IS NULL AND q.bot = ANY (:bots::text[]) AND q.priority <> 'low'
          AND NOT (q.claimed_at IS NULL AND q.reason IN ('invalid_session_id', 'kind_not_supported'))
          AND (q.bot, q.session_id, q.kind) NOT IN (SELECT bot, session_id, kind FROM named)) AS failed,
       (SELECT count(*) FROM archive_mismatches m
        WHERE NOT m.all_accepted AND m.bot = ANY (:bots) AND m.priority <> 'low'
          AND (m.bot, m.session_id, m.kind) NOT IN (SELECT bot, session_id, kind FROM named)) AS mismatched
