-- What the platform deletes before it can be archived: of a bot's waiting sessions how many calls are older than it keeps
-- recordings (:retention), and how many will be when their turn comes, if all that is still there goes by age at a steady pace
-- (:time_per_call, by the budget), which the bots of one budget (:budget_bots) that have something waiting share. Reads entries
-- of one index alone, those that may be too late at all, and no more than :max_rows of each list; of what is too late already no
-- more than :max_rows in all.
WITH pace AS MATERIALIZED (
    SELECT :time_per_call::interval * greatest(count(*), 1) AS each, now() - :retention::interval AS kept_since
    FROM unnest(:budget_bots::text[]) b (name), LATERAL (
        SELECT FROM archive_queue q
        WHERE q.state = 'pending' AND q.bot = b.name ORDER BY q.kind, q.priority, q.run_at LIMIT 1) first
), lists AS MATERIALIZED (
    SELECT kind, priority FROM unnest('{recording,voicemail}'::text[]) kind, unnest('{high,normal,low}'::text[]) priority
), past AS MATERIALIZED (
    SELECT count(*) AS sessions
    FROM (SELECT FROM pace, lists, LATERAL (
              SELECT FROM archive_queue q
              WHERE q.finished_at IS NULL AND q.worker_id IS NULL AND q.bot = :bot AND q.kind = lists.kind
                AND q.priority = lists.priority AND q.archive_date < pace.kept_since
              ORDER BY q.archive_date LIMIT :max_rows::integer) gone
          LIMIT :max_rows) together
), waiting AS MATERIALIZED (
    SELECT archive_date, row_number() OVER (ORDER BY archive_date) AS place
    FROM (SELECT oldest.archive_date FROM pace, lists, LATERAL (
              SELECT q.archive_date FROM archive_queue q
              WHERE q.finished_at IS NULL AND q.worker_id IS NULL AND q.bot = :bot AND q.kind = lists.kind
                AND q.priority = lists.priority AND q.archive_date >= pace.kept_since
                AND q.archive_date < pace.kept_since + pace.each * :max_rows
              ORDER BY q.archive_date LIMIT :max_rows) oldest
          ORDER BY oldest.archive_date LIMIT :max_rows) together
)
SELECT (SELECT sessions FROM past) AS past, count(*) FILTER (WHERE late) AS lost,
       min(archive_date) FILTER (WHERE late) + :retention AS lost_from,
       count(*) >= :max_rows OR (SELECT sessions FROM past) >= :max_rows AS at_least
FROM (SELECT archive_date, archive_date < pace.kept_since + pace.each * place AS late FROM waiting, pace) judged
