-- Insert what is new; raise the priority of what waits with a lower one; count both (arrays of one length). What a producer put
-- off for more than a month, and no worker has had yet, is brought forward. Both in a fixed order: two that overlap cannot lock
-- each other out.
WITH given AS MATERIALIZED (
    SELECT DISTINCT ON (session_id, bot, kind) *, array_position('{high,normal,low}', priority) AS rank
    FROM unnest(:bots::text[], :session_ids::text[], :kinds::text[], :priorities::text[], :user_ids::text[],
                :started_at::timestamptz[], :ended_at::timestamptz[], :metadata::jsonb[])
        WITH ORDINALITY AS g (bot, session_id, kind, priority, user_id, started_at, ended_at, metadata, line)
    ORDER BY session_id, bot, kind, rank, line
), known AS MATERIALIZED (
    -- Found by the session ID alone: with the state in the condition the planner may read all that waits, for each of them.
    SELECT id, session_id, bot, kind, state, array_position('{high,normal,low}', priority) AS rank,
           state = 'pending' AND epoch = 0 AND run_at > now() AND detail ? 'run_at_given' AS put_off
    FROM archive_queue WHERE session_id = ANY (:session_ids::text[])
), added AS (
    -- Not of those that are known: the trigger would bring them forward, and then this statement could not change them any more.
    INSERT INTO archive_queue (bot, session_id, kind, priority, user_id, started_at, ended_at, metadata)
    SELECT bot, session_id, kind, priority, user_id, started_at, ended_at, metadata FROM given
    WHERE (session_id, bot, kind) NOT IN (SELECT session_id, bot, kind FROM known) ORDER BY session_id, bot, kind
    ON CONFLICT (session_id, bot, kind) DO NOTHING
    RETURNING id
), lower AS MATERIALIZED (
    -- Grouped, not joined: of two lists that it takes for short the planner makes a nested loop.
    SELECT max(id) AS id, min(wanted) AS rank, min(wanted) < min(present) AS higher, bool_or(put_off) AS put_off
    FROM (SELECT session_id, bot, kind, NULL::bigint AS id, rank AS wanted, NULL::integer AS present, false AS put_off FROM given
          UNION ALL
          SELECT session_id, bot, kind, id, NULL, rank, put_off FROM known WHERE state = 'pending') both_lists
    GROUP BY session_id, bot, kind HAVING min(wanted) < min(present) OR (bool_or(put_off) AND min(wanted) IS NOT NULL)
), locked AS MATERIALIZED (
    SELECT id FROM archive_queue WHERE id = ANY (ARRAY(SELECT id FROM lower)) AND state = 'pending' ORDER BY id FOR UPDATE
), changed AS (
    UPDATE archive_queue q
    SET priority = CASE WHEN l.higher THEN ('{high,normal,low}'::text[])[l.rank] ELSE q.priority END,
        run_at = CASE WHEN l.put_off THEN least(q.run_at, now()) ELSE q.run_at END
    FROM lower l
    WHERE q.id = l.id AND l.id = ANY (ARRAY(SELECT id FROM locked))
    RETURNING q.id, q.epoch, q.priority, q.run_at, l.higher, l.put_off
), noted AS (
    INSERT INTO archive_events (queue_id, event, epoch, actor, data)
    SELECT id, 'raised', epoch, :actor, jsonb_build_object('priority', priority) FROM changed WHERE higher
    UNION ALL
    SELECT id, 'brought_forward', epoch, :actor, jsonb_build_object('run_at', run_at) FROM changed WHERE put_off
), woken AS (
    SELECT pg_notify('archive_queue', '') WHERE EXISTS (SELECT FROM changed WHERE put_off) AND pg_notification_queue_usage() < 0.5
)
SELECT (SELECT count(*) FROM added) AS added, (SELECT count(*) FROM changed WHERE higher) AS raised, (SELECT count(*) FROM woken) AS woken
