-- Insert what is new; raise the priority of what waits with a lower one; count both.
-- $1 bots, $2 session IDs, $3 kinds, $4 priorities, $5 user IDs, $6 started_at, $7 ended_at, $8 metadata: arrays of one length.
-- $9 actor. Both in a fixed order, so that two that overlap cannot lock each other out.
WITH given AS MATERIALIZED (
    SELECT DISTINCT ON (session_id, bot, kind) *, array_position('{high,normal,low}', priority) AS rank
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::timestamptz[],
                $8::jsonb[])
        WITH ORDINALITY AS g (bot, session_id, kind, priority, user_id, started_at, ended_at, metadata, line)
    ORDER BY session_id, bot, kind, rank, line
), added AS (
    INSERT INTO archive_queue (bot, session_id, kind, priority, user_id, started_at, ended_at, metadata)
    SELECT bot, session_id, kind, priority, user_id, started_at, ended_at, metadata FROM given ORDER BY session_id, bot, kind
    ON CONFLICT DO NOTHING
    RETURNING id
), known AS MATERIALIZED (
    -- Found by the session ID alone: with the state in the condition the planner may read all that waits, for each of them.
    SELECT id, session_id, bot, kind, state, array_position('{high,normal,low}', priority) AS rank
    FROM archive_queue WHERE session_id = ANY ($2::text[])
), lower AS MATERIALIZED (
    -- Grouped, not joined: of two lists that it takes for short the planner makes a nested loop.
    SELECT max(id) AS id, min(wanted) AS rank
    FROM (SELECT session_id, bot, kind, NULL::bigint AS id, rank AS wanted, NULL::integer AS present FROM given
          UNION ALL
          SELECT session_id, bot, kind, id, NULL, rank FROM known WHERE state = 'pending') both_lists
    GROUP BY session_id, bot, kind HAVING min(wanted) < min(present)
), locked AS MATERIALIZED (
    SELECT id FROM archive_queue WHERE id = ANY (ARRAY(SELECT id FROM lower)) AND state = 'pending' ORDER BY id FOR UPDATE
), raised AS (
    UPDATE archive_queue q SET priority = ('{high,normal,low}'::text[])[l.rank]
    FROM lower l
    WHERE q.id = l.id AND l.id = ANY (ARRAY(SELECT id FROM locked))
    RETURNING q.id, q.epoch, q.priority
), noted AS (
    INSERT INTO archive_events (queue_id, event, epoch, actor, data)
    SELECT id, 'raised', epoch, $9, jsonb_build_object('priority', priority) FROM raised
)
SELECT (SELECT count(*) FROM added) AS added, (SELECT count(*) FROM raised) AS raised
