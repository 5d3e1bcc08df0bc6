-- What the platform deletes before it can be archived: of a bot's waiting sessions how many calls are older than it keeps recordings,
-- and how many will be when their turn comes, if all that is still there goes by age at a steady pace, which the bots of one budget that
-- have something waiting share. Reads entries of one index alone, those that may be too late at all, and no more than $4 of each list;
-- of what is too late already no more than $4 in all.
-- $1 bot, $2 how long the platform keeps recordings, $3 what one call takes by the budget, $4 rows at most, $5 bots of the same budget
WITH pace AS MATERIALIZED (
    SELECT $3::interval * greatest(count(*), 1) AS each, now() - $2::interval AS kept_since
    FROM unnest($5::text[]) b (name), LATERAL (
        SELECT FROM archive_queue q
        WHERE q.state = 'pending' AND q.bot = b.name ORDER BY q.kind, q.priority, q.run_at LIMIT 1) first
), lists AS MATERIALIZED (
    SELECT kind, priority FROM unnest('{recording,voicemail}'::text[]) kind, unnest('{high,normal,low}'::text[]) priority
), past AS MATERIALIZED (
    SELECT count(*) AS sessions
    FROM (SELECT FROM pace, lists, LATERAL (
              SELECT FROM archive_queue q
              WHERE q.finished_at IS NULL AND q.worker_id IS NULL AND q.bot = $1 AND q.kind = lists.kind
                AND q.priority = lists.priority AND q.archive_date < pace.kept_since
              ORDER BY q.archive_date LIMIT $4::integer) gone
          LIMIT $4) together
), waiting AS MATERIALIZED (
    SELECT archive_date, row_number() OVER (ORDER BY archive_date) AS place
    FROM (SELECT oldest.archive_date FROM pace, lists, LATERAL (
              SELECT q.archive_date FROM archive_queue q
              WHERE q.finished_at IS NULL AND q.worker_id IS NULL AND q.bot = $1 AND q.kind = lists.kind
                AND q.priority = lists.priority AND q.archive_date >= pace.kept_since
                AND q.archive_date < pace.kept_since + pace.each * $4
              ORDER BY q.archive_date LIMIT $4) oldest
          ORDER BY oldest.archive_date LIMIT $4) together
)
SELECT (SELECT sessions FROM past) AS past, count(*) FILTER (WHERE late) AS lost, min(archive_date) FILTER (WHERE late) + $2 AS lost_from,
       count(*) >= $4 OR (SELECT sessions FROM past) >= $4 AS at_least
FROM (SELECT archive_date, archive_date < pace.kept_since + pace.each * place AS late FROM waiting, pace) judged
