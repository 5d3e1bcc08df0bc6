-- Keep with sessions in the queue what a listing says of their calls (arrays of one length). It is the platform's word: it stands
-- before what a producer gave. A session that is listed more than once, such as one that was passed on, lasts from its first
-- beginning to its last end. That nobody answered holds for as long as the listing says so (:lists_unanswered: this one would;
-- the sessions history knows of no campaigns); a session that was given up for it is asked for again then. The date in a path
-- stays as it was fixed. One row: how many rows it was news to.
WITH given AS MATERIALIZED (
    SELECT archive_short(session_id) AS session_id, kind, started_at, ended_at, user_id, call
    FROM unnest(:session_ids::text[], :kinds::text[], :started_at::timestamptz[], :ended_at::timestamptz[], :user_ids::text[],
                :facts::jsonb[])
        AS g (session_id, kind, started_at, ended_at, user_id, call)
), listed AS MATERIALIZED (
    SELECT q.id, q.listed_at, CASE WHEN q.listed_at IS NULL THEN g.started_at ELSE least(q.started_at, g.started_at) END AS started_at,
           CASE WHEN q.listed_at IS NULL THEN coalesce(g.ended_at, q.ended_at) ELSE greatest(q.ended_at, g.ended_at) END AS ended_at,
           coalesce(q.user_id, g.user_id) AS user_id,
           CASE WHEN :lists_unanswered::boolean THEN q.call - 'unanswered' ELSE q.call END || g.call AS call,
           ROW (q.started_at, q.ended_at, q.user_id, q.call) AS before
    FROM archive_queue q JOIN given g ON g.session_id = q.session_id AND g.kind = q.kind
    WHERE q.session_id = ANY (ARRAY(SELECT session_id FROM given)) AND q.bot = :bot
), news AS MATERIALIZED (
    SELECT * FROM listed WHERE listed_at IS NULL OR before IS DISTINCT FROM ROW (started_at, ended_at, user_id, call)
), locked AS MATERIALIZED (
    -- In the order of their rows: two that overlap cannot lock each other out.
    SELECT id FROM archive_queue WHERE id = ANY (ARRAY(SELECT id FROM news)) ORDER BY id FOR UPDATE
), changed AS (
    UPDATE archive_queue q
    SET started_at = k.started_at, ended_at = k.ended_at, user_id = k.user_id, call = k.call, listed_at = clock_timestamp(),
        -- What was given up for a time, or a dial, that turns out to be another is asked for once more.
        recheck_at = CASE WHEN q.state = 'unavailable' AND (q.reason = 'probably_purged' AND k.started_at > q.started_at
                                                            OR q.reason = 'not_answered' AND NOT k.call ? 'unanswered')
                          THEN clock_timestamp() ELSE q.recheck_at END
    FROM news k WHERE q.id = k.id AND k.id = ANY (ARRAY(SELECT id FROM locked))
    RETURNING q.id, q.finished_at, q AS session
), recorded AS (
    INSERT INTO archive_ledger_outbox (event, queue_id, body)
    SELECT 'described', c.id, archive_ledger_body(c.session, archive_ledger_files(c.id), 'worker')
    FROM changed c WHERE c.finished_at IS NOT NULL AND EXISTS (SELECT FROM archive_ledger_head) ORDER BY c.id
)
SELECT count(*) AS changed FROM changed
