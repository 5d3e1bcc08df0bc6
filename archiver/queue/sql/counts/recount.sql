-- Count every session and file again, and by how much the counts are wrong; with :mend these are written as changes. What others
-- change meanwhile is in neither, as all of it is read at one moment, and adds itself.
WITH truth AS (
    SELECT q.bot, q.kind, q.priority, q.day, q.state, q.reason, count(*) AS sessions, sum(q.accepted) AS accepted, sum(q.rechecks) AS rechecks,
           sum(q.calls) AS calls, coalesce(sum(f.files), 0) AS files, coalesce(sum(f.bytes), 0) AS bytes,
           coalesce(sum(f.milliseconds), 0) AS milliseconds
    FROM archive_countable q
    LEFT JOIN (SELECT queue_id, count(*) AS files, sum(bytes) AS bytes, sum(coalesce(round(seconds * 1000), 0)) AS milliseconds
               FROM archived_recordings GROUP BY queue_id) f ON f.queue_id = q.id
    GROUP BY 1, 2, 3, 4, 5, 6
), wrong AS MATERIALIZED (
    SELECT bot, kind, priority, day, state, reason, sum(sessions)::bigint AS sessions, sum(accepted)::bigint AS accepted,
           sum(rechecks)::bigint AS rechecks, sum(calls)::bigint AS calls, sum(files)::bigint AS files, sum(bytes)::bigint AS bytes,
           sum(milliseconds)::bigint AS milliseconds
    FROM (SELECT * FROM truth
          UNION ALL
          SELECT bot, kind, priority, day, state, reason, -sessions, -accepted, -rechecks, -calls, -files, -bytes, -milliseconds
          FROM (SELECT * FROM archive_rollup UNION ALL SELECT * FROM archive_rollup_changes) counted) both_counts
    GROUP BY 1, 2, 3, 4, 5, 6
    HAVING sum(sessions) <> 0 OR sum(accepted) <> 0 OR sum(rechecks) <> 0 OR sum(calls) <> 0 OR sum(files) <> 0 OR sum(bytes) <> 0
           OR sum(milliseconds) <> 0
), mended AS (
    INSERT INTO archive_rollup_changes (bot, kind, priority, day, state, reason, sessions, accepted, rechecks, calls, files, bytes, milliseconds)
    SELECT bot, kind, priority, day, state, reason, sessions, accepted, rechecks, calls, files, bytes, milliseconds FROM wrong
    WHERE :mend::boolean
)
SELECT bot, kind, priority, day, state, reason, sessions, accepted, rechecks, calls, files, bytes, milliseconds / 1000.0::float8 AS seconds
FROM wrong ORDER BY bot, day, state, kind, priority, reason
