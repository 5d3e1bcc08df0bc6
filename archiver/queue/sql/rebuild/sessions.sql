-- Sessions as their records have them (:sessions, a list of objects), in place of what the database says of them. `restored` of each:
-- when it is due, if it waits; a session that is unavailable is asked for again as the settings have it, counted from when it ended.
-- One row each: its number, its place `n`, and whether it was there.
WITH given AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset(:sessions::jsonb) AS s (
        n integer, bot text, session_id text, kind text, user_id text, started_at timestamptz, priority text, metadata jsonb, state text,
        reason text, detail jsonb, archive_date timestamptz, enqueued_at timestamptz, finished_at timestamptz, epoch bigint,
        failures integer, checks integer, crashes integer, calls integer, ended_at timestamptz, call jsonb, listed_at timestamptz,
        rechecks integer, last_asked_at timestamptz, archived_before boolean, accepted_at timestamptz, accepted_by text,
        accept_reason text, files integer, first_asked_at timestamptz)
), known AS MATERIALIZED (
    SELECT q.id, q.epoch, q.bot, q.session_id, q.kind, q.enqueued_at, q.enqueued_by, q.enqueued_as, q.state, q.worker_id, q.claimed_at,
           q.rechecks, q.failures, q.checks, q.crashes
    FROM archive_queue q JOIN given USING (session_id, bot, kind)
), told AS (
    -- What their history has from the row is to stay as it was.
    INSERT INTO archive_events (queue_id, event, epoch, actor, at, data)
    SELECT k.id, 'enqueued', 0, k.enqueued_by, k.enqueued_at,
           jsonb_build_object('priority', coalesce(k.enqueued_as, 'normal'), 'state', 'pending')
    FROM known k WHERE k.enqueued_by IS NOT NULL
    UNION ALL
    SELECT k.id, 'claimed', k.epoch, 'worker ' || k.worker_id, k.claimed_at,
           CASE WHEN k.state = 'unavailable' THEN jsonb_build_object('recheck', k.rechecks + 1)
                WHEN k.failures + k.checks + k.crashes = 0 THEN '{}'
                ELSE jsonb_build_object('failures', k.failures, 'checks', k.checks, 'crashes', k.crashes) END
    FROM known k
    WHERE k.worker_id IS NOT NULL
      AND NOT EXISTS (SELECT FROM archive_events c WHERE c.queue_id = k.id AND c.epoch = k.epoch AND c.event = 'claimed')
), placed AS (
    INSERT INTO archive_queue (
        bot, session_id, kind, user_id, started_at, priority, run_at, metadata, state, reason, detail, archive_date, enqueued_at,
        finished_at, worker_id, epoch, failures, checks, crashes, calls, ended_at, call, files, listed_at, recheck_at, rechecks,
        recheck_tries, first_asked_at, last_asked_at, archived_before, accepted_at, accepted_by, accept_reason, enqueued_by)
    SELECT g.bot, g.session_id, g.kind, g.user_id, g.started_at, coalesce(g.priority, 'normal'), clock_timestamp(),
           coalesce(g.metadata, '{}'), g.state, g.reason, coalesce(g.detail, '{}'), coalesce(g.archive_date, clock_timestamp()),
           coalesce(g.enqueued_at, clock_timestamp()),
           CASE WHEN g.state <> 'pending' THEN coalesce(g.finished_at, clock_timestamp()) END, NULL,
           greatest(coalesce(g.epoch, 0), coalesce(k.epoch, 0)) + (g.state = 'pending')::integer, coalesce(g.failures, 0),
           coalesce(g.checks, 0), coalesce(g.crashes, 0), coalesce(g.calls, 0), g.ended_at, coalesce(g.call, '{}'), g.files, g.listed_at,
           CASE WHEN g.state = 'unavailable'
                THEN (SELECT min(g.finished_at + d) FROM unnest(:recheck_unavailable::interval[]) d
                      WHERE isfinite(g.finished_at) AND g.finished_at + d > clock_timestamp()) END,
           coalesce(g.rechecks, 0), 0, g.first_asked_at, g.last_asked_at, coalesce(g.archived_before, false), g.accepted_at, g.accepted_by, g.accept_reason, NULL
    FROM given g LEFT JOIN known k USING (session_id, bot, kind)
    ORDER BY g.n
    ON CONFLICT (session_id, bot, kind) DO UPDATE SET
        user_id = excluded.user_id, started_at = excluded.started_at, priority = excluded.priority, run_at = excluded.run_at,
        metadata = excluded.metadata, state = excluded.state, reason = excluded.reason, detail = excluded.detail,
        archive_date = excluded.archive_date, enqueued_at = excluded.enqueued_at, finished_at = excluded.finished_at, worker_id = NULL,
        epoch = excluded.epoch, failures = excluded.failures, checks = excluded.checks, crashes = excluded.crashes,
        calls = excluded.calls, ended_at = excluded.ended_at, call = excluded.call, files = excluded.files, listed_at = excluded.listed_at,
        recheck_at = excluded.recheck_at, rechecks = excluded.rechecks, recheck_tries = 0, first_asked_at = excluded.first_asked_at, last_asked_at = excluded.last_asked_at,
        archived_before = excluded.archived_before, accepted_at = excluded.accepted_at, accepted_by = excluded.accepted_by,
        accept_reason = excluded.accept_reason, enqueued_by = NULL, enqueued_as = NULL
    RETURNING id, session_id, bot, kind
)
SELECT p.id, g.n, k.id IS NOT NULL AS known
FROM placed p JOIN given g USING (session_id, bot, kind) LEFT JOIN known k USING (session_id, bot, kind)
ORDER BY g.n
