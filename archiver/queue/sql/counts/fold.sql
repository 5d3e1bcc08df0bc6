-- Fold at most :max_changes changes into the roll-up, in one order: two who fold at once take other changes, and wait for each other
-- without a circle. Whoever reads sees them in one place or in the other.
WITH chosen AS MATERIALIZED (
    SELECT ctid FROM archive_rollup_changes LIMIT :max_changes::integer FOR UPDATE SKIP LOCKED
), taken AS (
    DELETE FROM archive_rollup_changes WHERE ctid = ANY (ARRAY(SELECT ctid FROM chosen)) RETURNING *
), folded AS (
    INSERT INTO archive_rollup AS r (bot, kind, priority, day, state, reason, sessions, accepted, rechecks, calls, files, bytes, milliseconds)
    SELECT bot, kind, priority, day, state, reason, sum(sessions), sum(accepted), sum(rechecks), sum(calls), sum(files), sum(bytes),
           sum(milliseconds)
    FROM taken GROUP BY bot, state, day, kind, priority, reason ORDER BY bot, state, day, kind, priority, reason
    ON CONFLICT (bot, state, day, kind, priority, reason) DO UPDATE SET
        sessions = r.sessions + excluded.sessions, accepted = r.accepted + excluded.accepted, rechecks = r.rechecks + excluded.rechecks,
        calls = r.calls + excluded.calls, files = r.files + excluded.files, bytes = r.bytes + excluded.bytes,
        milliseconds = r.milliseconds + excluded.milliseconds
)
SELECT count(*) AS changes FROM taken
