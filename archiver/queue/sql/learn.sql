-- Keep with sessions that are known what a listing says of their calls. What it says is the platform's word: it stands before what a
-- producer gave. The date in a path stays as it was fixed. One row: how many rows it was news to.
-- $1 bot; arrays of one length: $2 session IDs, $3 kinds, $4 started_at, $5 ended_at (null: not yet), $6 user IDs, $7 facts
WITH given AS MATERIALIZED (
    SELECT archive_short(session_id) AS session_id, kind, started_at, ended_at, user_id, call
    FROM unnest($2::text[], $3::text[], $4::timestamptz[], $5::timestamptz[], $6::text[], $7::jsonb[])
        AS g (session_id, kind, started_at, ended_at, user_id, call)
), known AS MATERIALIZED (
    SELECT q.id, g.started_at, coalesce(g.ended_at, q.ended_at) AS ended_at, coalesce(q.user_id, g.user_id) AS user_id,
           q.call || g.call AS call
    FROM archive_queue q JOIN given g ON g.session_id = q.session_id AND g.kind = q.kind
    WHERE q.session_id = ANY (ARRAY(SELECT session_id FROM given)) AND q.bot = $1
      AND (q.started_at, q.ended_at, q.user_id, q.call) IS DISTINCT FROM
          (g.started_at, coalesce(g.ended_at, q.ended_at), coalesce(q.user_id, g.user_id), q.call || g.call)
), locked AS MATERIALIZED (
    -- In the order of their rows: two that overlap cannot lock each other out.
    SELECT id FROM archive_queue WHERE id = ANY (ARRAY(SELECT id FROM known)) ORDER BY id FOR UPDATE
), learnt AS (
    UPDATE archive_queue q SET started_at = k.started_at, ended_at = k.ended_at, user_id = k.user_id, call = k.call
    FROM known k WHERE q.id = k.id AND k.id = ANY (ARRAY(SELECT id FROM locked))
    RETURNING q.id
)
SELECT count(*) AS learnt FROM learnt
