-- Lock the sessions that are looked at next of those that ended before the ledger was begun, newest first, as many as the rate allows since
-- the last time (of a pause no more than five minutes' worth; none where the clock was set back). No row: another one is at it, or none
-- are left. `before` and `before_id`: where those after them begin. In the next statement nobody changes them any more, and what others
-- did to them until now is seen.
WITH here AS MATERIALIZED (
    SELECT adopt_before, adopt_id,
           CASE WHEN isfinite(adopt_at)
                THEN least(floor(extract(epoch FROM least(clock_timestamp() - adopt_at, interval '5 minutes')) * :per_minute / 60), :most::integer)
                ELSE least(5 * :per_minute, :most::integer) END::integer AS allowed
    FROM archive_ledger_head WHERE adopt_before IS NOT NULL FOR UPDATE SKIP LOCKED
), next AS MATERIALIZED (
    SELECT old.id, old.finished_at
    FROM here, unnest('{archived,unavailable,failed,cancelled}'::text[]) AS ended (state), LATERAL (
        SELECT q.id, q.finished_at FROM archive_queue q
        WHERE q.state = ended.state AND (q.finished_at, q.id) < (here.adopt_before, here.adopt_id)
        ORDER BY q.finished_at DESC, q.id DESC LIMIT greatest(here.allowed, 0)) old
    ORDER BY old.finished_at DESC, old.id DESC LIMIT (SELECT greatest(allowed, 0) FROM here)
), locked AS MATERIALIZED (
    SELECT q.id FROM archive_queue q WHERE q.id = ANY (ARRAY(SELECT id FROM next)) ORDER BY q.id FOR UPDATE
)
SELECT here.allowed, ARRAY(SELECT id FROM next ORDER BY finished_at DESC, id DESC) AS ids, last.finished_at::text AS before, last.id AS before_id,
       (SELECT count(*) FROM locked) AS locked
FROM here LEFT JOIN (SELECT id, finished_at FROM next ORDER BY finished_at, id LIMIT 1) last ON true
