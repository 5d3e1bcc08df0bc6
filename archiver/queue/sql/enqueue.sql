-- Insert what is new; raise the priority of what waits with a lower one; say of each row which it was.
-- $1 bots, $2 session IDs, $3 kinds, $4 priorities, $5 user IDs, $6 started_at, $7 ended_at, $8 metadata: arrays of one length.
-- $9 actor
-- Both in a fixed order, so that two that overlap cannot lock each other out.
WITH given AS MATERIALIZED (
    SELECT DISTINCT ON (session_id, bot, kind) *
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::timestamptz[],
                $8::jsonb[])
        WITH ORDINALITY AS g (bot, session_id, kind, priority, user_id, started_at, ended_at, metadata, line)
    ORDER BY session_id, bot, kind, array_position('{high,normal,low}', priority), line
), added AS (
    INSERT INTO archive_queue (bot, session_id, kind, priority, user_id, started_at, ended_at, metadata)
    SELECT bot, session_id, kind, priority, user_id, started_at, ended_at, metadata FROM given ORDER BY session_id, bot, kind
    ON CONFLICT DO NOTHING
    RETURNING id
), lower AS MATERIALIZED (
    SELECT q.id, g.priority FROM archive_queue q
    JOIN given g ON (q.bot, q.session_id, q.kind) = (g.bot, g.session_id, g.kind)
    WHERE q.state = 'pending' AND array_position('{high,normal,low}', g.priority) < array_position('{high,normal,low}', q.priority)
    ORDER BY q.id FOR UPDATE OF q
), raised AS (
    UPDATE archive_queue q SET priority = l.priority FROM lower l WHERE q.id = l.id
    RETURNING q.id, q.epoch, q.priority
), noted AS (
    INSERT INTO archive_events (queue_id, event, epoch, actor, data)
    SELECT id, 'raised', epoch, $9, jsonb_build_object('priority', priority) FROM raised
)
SELECT (SELECT count(*) FROM added) AS added, (SELECT count(*) FROM raised) AS raised
