-- phase: expand
-- min_program: 0.2
-- What is counted is kept: sessions by bot, day and state as they change, each account of calls that was made, what was found wrong with
-- archived sessions, and what somebody has accepted as lost.
SET LOCAL lock_timeout = '1min';

-- At once all that is needed: whoever holds a lesser lock and waits for a greater one waits for others that do the same.
LOCK TABLE archive_queue, archived_recordings IN ACCESS EXCLUSIVE MODE;

ALTER TABLE archive_queue
    ADD COLUMN accepted_at timestamptz,
    ADD COLUMN accepted_by text,
    ADD COLUMN accept_reason text,
    ADD CONSTRAINT archive_queue_accepted CHECK (
        CASE WHEN accepted_at IS NULL THEN accepted_by IS NULL AND accept_reason IS NULL
             ELSE accepted_by IS NOT NULL AND accept_reason IS NOT NULL AND state IN ('failed', 'archived') END) NOT VALID;
COMMENT ON COLUMN archive_queue.accepted_at IS 'Somebody answers for it that this session stays as it is: failed, or archived with a mismatch.';

CREATE OR REPLACE VIEW archive_sessions AS
SELECT bot, session_id, kind, state, reason, priority, user_id, started_at, enqueued_at, run_at, claimed_at, first_asked_at,
       finished_at, failures, checks, crashes, calls, metadata, detail, id AS queue_id, ended_at, call, files, listed_at,
       recheck_at, rechecks, last_asked_at, accepted_at, accepted_by, accept_reason,
       CASE WHEN listed_at IS NOT NULL AND started_at IS NOT NULL THEN started_at ELSE archive_date END AS called_at
FROM archive_queue;

-- The same as it is searched: by the indexes of the next migration, whose expressions these are. A number is found by its last seven
-- digits; people are those who spoke for the contact centre.
CREATE VIEW archive_searchable AS
SELECT id AS queue_id, bot, session_id, kind, state, reason, left(coalesce(reason, ''), 100) AS counted_reason,
       detail ->> 'reason' AS inner_reason, priority, finished_at, worker_id, archive_date, started_at, ended_at, user_id,
       left(user_id, 200) AS user_key, call,
       CASE WHEN listed_at IS NOT NULL AND started_at IS NOT NULL THEN started_at ELSE archive_date END AS called_at,
       right(regexp_replace(split_part(call ->> 'caller', '@', 1), '[^0-9]', '', 'g'), 7) AS caller_key,
       ltrim(regexp_replace(split_part(call ->> 'caller', '@', 1), '[^0-9]', '', 'g'), '0') AS caller_digits,
       right(regexp_replace(split_part(call ->> 'callee', '@', 1), '[^0-9]', '', 'g'), 7) AS callee_key,
       ltrim(regexp_replace(split_part(call ->> 'callee', '@', 1), '[^0-9]', '', 'g'), '0') AS callee_digits,
       jsonb_to_tsvector('simple', coalesce(call -> 'agent', '[]') || coalesce(call -> 'consulted', '[]') || coalesce(call -> 'joined', '[]'),
                         '["string"]') AS people,
       accepted_at, accepted_by, accept_reason
FROM archive_queue;
COMMENT ON VIEW archive_searchable IS 'archive_sessions as `archiver list` and `find` search them.';

-- The roll-up: what statements changed, one row a key and statement, and their sums, into which workers fold them. A row that all of
-- them updated would make them wait for each other.
CREATE TABLE archive_rollup (
    bot text NOT NULL,
    kind text NOT NULL,
    priority text NOT NULL,
    day date NOT NULL,
    state text NOT NULL,
    reason text NOT NULL,
    sessions bigint NOT NULL,
    accepted bigint NOT NULL,
    rechecks bigint NOT NULL,
    calls bigint NOT NULL,
    files bigint NOT NULL,
    bytes bigint NOT NULL,
    milliseconds bigint NOT NULL,
    PRIMARY KEY (bot, state, day, kind, priority, reason)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.1);
COMMENT ON TABLE archive_rollup IS 'Sessions by bot, UTC day of archive_date, state and what else is told apart, up to the last fold. Read archive_counts.';

CREATE TABLE archive_rollup_changes (LIKE archive_rollup)
    WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
-- It has no key, and workers delete from it: where tables are replicated logically that needs this.
ALTER TABLE archive_rollup_changes REPLICA IDENTITY FULL;
COMMENT ON TABLE archive_rollup_changes IS 'By how much each statement changed the counts, append only, until a worker folds it into archive_rollup.';

CREATE VIEW archive_counts AS
SELECT bot, kind, priority, day, state, reason, sum(sessions)::bigint AS sessions, sum(accepted)::bigint AS accepted,
       sum(rechecks)::bigint AS rechecks, sum(calls)::bigint AS calls, sum(files)::bigint AS files, sum(bytes)::bigint AS bytes,
       sum(milliseconds)::bigint AS milliseconds
FROM (SELECT * FROM archive_rollup UNION ALL SELECT * FROM archive_rollup_changes) counted
GROUP BY bot, kind, priority, day, state, reason
HAVING sum(sessions) <> 0 OR sum(files) <> 0;
COMMENT ON VIEW archive_counts IS
    'Sessions, and their files, by bot, kind, UTC day of archive_date, state and reason; of those that wait also by priority. Exact at any time.';

-- What a session is counted as. The names are filled in, as the functions run with the owner's rights.
DO $migration$
DECLARE
    made text;
    name text;
BEGIN
FOREACH made IN ARRAY ARRAY[$view$
CREATE VIEW {archive_countable} AS
SELECT q.id, q.bot, CASE WHEN q.kind IN ('recording', 'voicemail') THEN q.kind ELSE 'other' END AS kind,
       CASE WHEN q.finished_at IS NULL THEN q.priority ELSE '' END AS priority,
       (q.archive_date AT TIME ZONE 'UTC')::date AS day, q.state, left(coalesce(q.reason, ''), 100) AS reason,
       (q.accepted_at IS NOT NULL)::integer AS accepted, (q.recheck_at IS NOT NULL)::integer AS rechecks, q.calls
FROM {archive_queue} q
$view$, $sessions$
-- Counts what a statement changed, whoever's statement it was.
CREATE FUNCTION {archive_count_sessions}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_RELID <> '{archive_queue}'::regclass OR TG_WHEN <> 'AFTER' OR TG_LEVEL <> 'STATEMENT' THEN
        RAISE EXCEPTION 'archive_count_sessions serves archive_queue alone' USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF TG_OP = 'INSERT' THEN
        INSERT INTO {archive_rollup_changes} (bot, kind, priority, day, state, reason, sessions, accepted, rechecks, calls, files, bytes, milliseconds)
        SELECT bot, CASE WHEN kind IN ('recording', 'voicemail') THEN kind ELSE 'other' END, CASE WHEN finished_at IS NULL THEN priority ELSE '' END,
               (archive_date AT TIME ZONE 'UTC')::date, state, left(coalesce(reason, ''), 100), count(*), count(accepted_at), count(recheck_at),
               sum(calls), 0, 0, 0
        FROM after_rows GROUP BY 1, 2, 3, 4, 5, 6;
    ELSIF TG_OP = 'DELETE' THEN     -- its recordings, if it had any, went before
        INSERT INTO {archive_rollup_changes} (bot, kind, priority, day, state, reason, sessions, accepted, rechecks, calls, files, bytes, milliseconds)
        SELECT bot, CASE WHEN kind IN ('recording', 'voicemail') THEN kind ELSE 'other' END, CASE WHEN finished_at IS NULL THEN priority ELSE '' END,
               (archive_date AT TIME ZONE 'UTC')::date, state, left(coalesce(reason, ''), 100), -count(*), -count(accepted_at), -count(recheck_at),
               -sum(calls), 0, 0, 0
        FROM before_rows GROUP BY 1, 2, 3, 4, 5, 6;
    ELSE
        INSERT INTO {archive_rollup_changes} (bot, kind, priority, day, state, reason, sessions, accepted, rechecks, calls, files, bytes, milliseconds)
        SELECT bot, CASE WHEN kind IN ('recording', 'voicemail') THEN kind ELSE 'other' END, CASE WHEN ended THEN '' ELSE priority END,
               (archive_date AT TIME ZONE 'UTC')::date, state, left(reason, 100), sum(n), sum(accepted), sum(rechecks), sum(calls), 0, 0, 0
        FROM (SELECT bot, kind, priority, finished_at IS NOT NULL AS ended, archive_date, state, coalesce(reason, '') AS reason, -1 AS n,
                     -(accepted_at IS NOT NULL)::integer AS accepted, -(recheck_at IS NOT NULL)::integer AS rechecks, -calls AS calls
              FROM before_rows
              UNION ALL
              SELECT bot, kind, priority, finished_at IS NOT NULL, archive_date, state, coalesce(reason, ''), 1,
                     (accepted_at IS NOT NULL)::integer, (recheck_at IS NOT NULL)::integer, calls
              FROM after_rows) c
        GROUP BY 1, 2, 3, 4, 5, 6
        HAVING sum(n) <> 0 OR sum(accepted) <> 0 OR sum(rechecks) <> 0 OR sum(calls) <> 0;
        -- What it had stored moves along. What this very statement stores is counted by archive_count_files, where the session is now:
        -- such a row and the session's own bear the same transaction and command. A session whose first claim is being made, or ends,
        -- had nothing.
        IF EXISTS (SELECT FROM before_rows WHERE epoch > 1 OR (epoch = 1 AND worker_id IS NULL)) THEN
            INSERT INTO {archive_rollup_changes} (bot, kind, priority, day, state, reason, sessions, accepted, rechecks, calls, files, bytes, milliseconds)
            SELECT c.bot, CASE WHEN c.kind IN ('recording', 'voicemail') THEN c.kind ELSE 'other' END, CASE WHEN c.ended THEN '' ELSE c.priority END,
                   (c.archive_date AT TIME ZONE 'UTC')::date, c.state, left(coalesce(c.reason, ''), 100), 0, 0, 0, 0,
                   sum(c.n * c.files), sum(c.n * c.bytes), sum(c.n * c.milliseconds)
            FROM (
                SELECT v.*, f.files, f.bytes, f.milliseconds
                FROM before_rows o JOIN after_rows a USING (id)
                CROSS JOIN LATERAL (
                    SELECT count(*) AS files, coalesce(sum(r.bytes), 0) AS bytes, coalesce(sum(round(r.seconds * 1000)), 0) AS milliseconds
                    FROM {archived_recordings} r, {archive_queue} q
                    WHERE r.queue_id = o.id AND q.id = o.id AND (r.xmin <> q.xmin OR NOT r.cmin = q.cmin)
                ) f
                CROSS JOIN LATERAL (VALUES
                    (-1, o.bot, o.kind, o.priority, o.finished_at IS NOT NULL, o.archive_date, o.state, o.reason),
                    (1, a.bot, a.kind, a.priority, a.finished_at IS NOT NULL, a.archive_date, a.state, a.reason)
                ) v (n, bot, kind, priority, ended, archive_date, state, reason)
                WHERE (o.epoch > 1 OR (o.epoch = 1 AND o.worker_id IS NULL)) AND f.files > 0
                  AND (o.state, o.reason, o.priority, o.bot, o.kind, o.archive_date)
                      IS DISTINCT FROM (a.state, a.reason, a.priority, a.bot, a.kind, a.archive_date)
            ) c
            GROUP BY 1, 2, 3, 4, 5, 6
            HAVING sum(c.n * c.files) <> 0;
        END IF;
    END IF;
    RETURN NULL;
END $$
$sessions$, $files$
-- Counts files where their sessions are now.
CREATE FUNCTION {archive_count_files}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_RELID <> '{archived_recordings}'::regclass OR TG_WHEN <> 'AFTER' OR TG_LEVEL <> 'STATEMENT' THEN
        RAISE EXCEPTION 'archive_count_files serves archived_recordings alone' USING ERRCODE = 'insufficient_privilege';
    END IF;
    -- Where its session is now: nobody else moves it until this is committed.
    IF TG_OP = 'INSERT' THEN
        PERFORM FROM {archive_queue} WHERE id IN (SELECT queue_id FROM after_rows) ORDER BY id FOR NO KEY UPDATE;
    ELSE
        PERFORM FROM {archive_queue} WHERE id IN (SELECT queue_id FROM before_rows) ORDER BY id FOR NO KEY UPDATE;
    END IF;
    -- One after the other: a statement's rows before and after it are there only where it has both.
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO {archive_rollup_changes} (bot, kind, priority, day, state, reason, sessions, accepted, rechecks, calls, files, bytes, milliseconds)
        SELECT q.bot, q.kind, q.priority, q.day, q.state, q.reason, 0, 0, 0, 0, sum(f.files), sum(f.bytes), sum(f.milliseconds)
        FROM (SELECT queue_id, count(*) AS files, sum(bytes) AS bytes, sum(coalesce(round(seconds * 1000), 0)) AS milliseconds
              FROM after_rows GROUP BY queue_id) f
        JOIN {archive_countable} q ON q.id = f.queue_id
        GROUP BY 1, 2, 3, 4, 5, 6;
    END IF;
    IF TG_OP <> 'INSERT' THEN
        INSERT INTO {archive_rollup_changes} (bot, kind, priority, day, state, reason, sessions, accepted, rechecks, calls, files, bytes, milliseconds)
        SELECT q.bot, q.kind, q.priority, q.day, q.state, q.reason, 0, 0, 0, 0, -sum(f.files), -sum(f.bytes), -sum(f.milliseconds)
        FROM (SELECT queue_id, count(*) AS files, sum(bytes) AS bytes, sum(coalesce(round(seconds * 1000), 0)) AS milliseconds
              FROM before_rows GROUP BY queue_id) f
        JOIN {archive_countable} q ON q.id = f.queue_id
        GROUP BY 1, 2, 3, 4, 5, 6;
    END IF;
    RETURN NULL;
END $$
$files$, $accepted$
-- A producer accepts nothing.
CREATE FUNCTION {archive_refuse_acceptance}() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.accepted_at := NULL;
    NEW.accepted_by := NULL;
    NEW.accept_reason := NULL;
    RETURN NEW;
END $$
$accepted$] LOOP
    FOREACH name IN ARRAY '{archive_queue,archived_recordings,archive_rollup_changes,archive_countable,archive_count_sessions,archive_count_files,archive_refuse_acceptance}'::text[] LOOP
        made := replace(made, '''{' || name || '}''', quote_literal(format('%I.%I', current_schema(), name)));
        made := replace(made, '{' || name || '}', format('%I.%I', current_schema(), name));
    END LOOP;
    EXECUTE made;
END LOOP;
END $migration$;
COMMENT ON VIEW archive_countable IS 'What each session is counted as in archive_counts.';
REVOKE EXECUTE ON FUNCTION archive_count_sessions(), archive_count_files(), archive_refuse_acceptance() FROM PUBLIC;

-- Its name comes after archive_queue_admit: the order in which they run.
CREATE TRIGGER archive_queue_unaccepted BEFORE INSERT ON archive_queue FOR EACH ROW
    WHEN (NEW.accepted_at IS NOT NULL OR NEW.accepted_by IS NOT NULL OR NEW.accept_reason IS NOT NULL) EXECUTE FUNCTION archive_refuse_acceptance();
CREATE TRIGGER archive_queue_count_inserted AFTER INSERT ON archive_queue
    REFERENCING NEW TABLE AS after_rows FOR EACH STATEMENT EXECUTE FUNCTION archive_count_sessions();
CREATE TRIGGER archive_queue_count_updated AFTER UPDATE ON archive_queue
    REFERENCING OLD TABLE AS before_rows NEW TABLE AS after_rows FOR EACH STATEMENT EXECUTE FUNCTION archive_count_sessions();
CREATE TRIGGER archive_queue_count_deleted AFTER DELETE ON archive_queue
    REFERENCING OLD TABLE AS before_rows FOR EACH STATEMENT EXECUTE FUNCTION archive_count_sessions();
CREATE TRIGGER archived_recordings_count_inserted AFTER INSERT ON archived_recordings
    REFERENCING NEW TABLE AS after_rows FOR EACH STATEMENT EXECUTE FUNCTION archive_count_files();
CREATE TRIGGER archived_recordings_count_updated AFTER UPDATE ON archived_recordings
    REFERENCING OLD TABLE AS before_rows NEW TABLE AS after_rows FOR EACH STATEMENT EXECUTE FUNCTION archive_count_files();
CREATE TRIGGER archived_recordings_count_deleted AFTER DELETE ON archived_recordings
    REFERENCING OLD TABLE AS before_rows FOR EACH STATEMENT EXECUTE FUNCTION archive_count_files();

CREATE TABLE archive_accounts (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    made_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    made_by text NOT NULL,
    command text NOT NULL CHECK (command IN ('nightly', 'reconcile')),
    version text NOT NULL,
    from_at timestamptz NOT NULL,
    to_at timestamptz NOT NULL,
    complete boolean NOT NULL,
    counts jsonb NOT NULL,
    problems jsonb NOT NULL,
    failed_bots jsonb NOT NULL
);
COMMENT ON TABLE archive_accounts IS 'Each account of calls that nightly or reconcile made, append only.';
COMMENT ON COLUMN archive_accounts.failed_bots IS 'Bots that the platform gave no list of calls for, and why.';

CREATE TABLE archive_account_days (
    account_id bigint NOT NULL REFERENCES archive_accounts (id),
    bot text NOT NULL,
    day date NOT NULL,
    time_zone text NOT NULL,
    from_at timestamptz NOT NULL,
    to_at timestamptz NOT NULL,
    whole boolean NOT NULL,
    complete boolean NOT NULL,
    open_calls bigint NOT NULL,
    counts jsonb NOT NULL,
    PRIMARY KEY (bot, day, account_id)
);
COMMENT ON TABLE archive_account_days IS 'The days of each account: a day begins at midnight in the bot''s time zone.';
COMMENT ON COLUMN archive_account_days.open_calls IS 'Calls about which something is to be done: failed, pending, missing or mismatched, and not accepted.';
COMMENT ON COLUMN archive_account_days.whole IS 'The account was of the whole day, and not of a part of it.';

CREATE TABLE archive_findings (
    queue_id bigint NOT NULL REFERENCES archive_queue (id) ON DELETE CASCADE,
    source text NOT NULL CHECK (source IN ('verify', 'account')),
    found_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    found_by text NOT NULL,
    findings jsonb NOT NULL CHECK (jsonb_typeof(findings) = 'array'),
    accepted jsonb CHECK (jsonb_typeof(accepted) = 'array'),
    PRIMARY KEY (queue_id, source)
);
COMMENT ON TABLE archive_findings IS 'What the last verify, or the last account, found wrong with an archived session; a row goes when it is found right.';
COMMENT ON COLUMN archive_findings.accepted IS 'The findings when somebody accepted them: what is found later is not accepted.';

CREATE VIEW archive_mismatches AS
SELECT f.queue_id, f.findings, f.accepted, q.bot, q.session_id, q.kind, q.priority,
       q.accepted_at IS NOT NULL AND NOT EXISTS (
           SELECT FROM jsonb_array_elements(f.findings) found
           WHERE NOT EXISTS (SELECT FROM jsonb_array_elements(coalesce(f.accepted, '[]')) known WHERE known = found)) AS all_accepted
FROM archive_findings f JOIN archive_queue q ON q.id = f.queue_id
WHERE f.source = 'account' AND f.findings <> '[]' AND q.state = 'archived';
COMMENT ON VIEW archive_mismatches IS 'Archived sessions that the last account of them found wrong, and whether somebody accepted all of it.';

-- Who was granted the queue's rows gets the same of what belongs to them.
DO $$
DECLARE
    granted record;
BEGIN
    FOR granted IN SELECT DISTINCT a.grantee::regrole AS role, a.privilege_type AS may FROM pg_class c, aclexplode(c.relacl) a
                   WHERE c.oid = 'archive_queue'::regclass AND a.privilege_type IN ('SELECT', 'UPDATE') AND a.grantee NOT IN (0, c.relowner) LOOP
        EXECUTE format('GRANT %s ON archive_rollup, archive_rollup_changes, archive_accounts, archive_account_days, archive_findings TO %s',
                       CASE granted.may WHEN 'SELECT' THEN 'SELECT' ELSE 'SELECT, INSERT, UPDATE, DELETE' END, granted.role);
        EXECUTE format('GRANT SELECT ON archive_counts, archive_countable, archive_searchable, archive_mismatches TO %s', granted.role);
    END LOOP;
END $$;
