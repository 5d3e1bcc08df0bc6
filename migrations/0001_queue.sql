-- The queue, its history, and the archive's ledger of recordings.
--
-- Other programs insert into archive_queue (bot, session_id, and what they know besides) and read archive_sessions and
-- archived_recordings. Everything else here belongs to the archiver.

CREATE TABLE archive_bots (
    name        text PRIMARY KEY,
    configured  boolean NOT NULL DEFAULT true,              -- named by the configuration that last migrated, or by a worker since
    seen_at     timestamptz NOT NULL DEFAULT now(),
    served_at   timestamptz NOT NULL DEFAULT '-infinity',   -- last claim: the least recently served bot goes first
    paused_at   timestamptz,
    paused_by   text
);
COMMENT ON TABLE archive_bots IS 'Bots that a configuration named. paused_at: nothing of this bot is claimed.';

CREATE TABLE archive_holds (
    bot       text NOT NULL,
    kind      text NOT NULL,
    reason    text NOT NULL,
    detail    jsonb NOT NULL DEFAULT '{}',
    since     timestamptz NOT NULL DEFAULT now(),
    probe_at  timestamptz NOT NULL,                         -- from then on one session may be claimed to try again
    PRIMARY KEY (bot, kind)
);
COMMENT ON TABLE archive_holds IS 'What the whole fleet leaves alone until an operator mends it: rejected credentials, a short media_hosts list.';

CREATE TABLE archive_budgets (
    key            text PRIMARY KEY,                        -- host|bot_id, as the platform counts
    arrival        timestamptz NOT NULL DEFAULT '-infinity',-- GCRA: the theoretical arrival time of the next call
    blocked_until  timestamptz NOT NULL DEFAULT '-infinity',-- the platform said: not before
    strikes        integer NOT NULL DEFAULT 0               -- refusals in a row without a Retry-After, for the doubling
);

CREATE TABLE archive_calls (
    key  text NOT NULL,
    at   timestamptz NOT NULL
);
CREATE INDEX archive_calls_key_at ON archive_calls (key, at);
COMMENT ON TABLE archive_calls IS 'One row a call drawn, kept as long as the longest window of its bot: the longer windows are counted, not guessed.';

CREATE TABLE archive_workers (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,    -- new at every start
    host        text NOT NULL,
    pid         integer NOT NULL,
    version     text NOT NULL,
    started_at  timestamptz NOT NULL DEFAULT now(),
    renewed_at  timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz NOT NULL
);
COMMENT ON TABLE archive_workers IS 'Live workers: one lease a worker. A row past expires_at is a dead worker whose sessions anybody may rescue.';

CREATE TABLE archive_queue (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    bot             text NOT NULL,                          -- left out: the one configured bot
    session_id      text NOT NULL,
    kind            text NOT NULL DEFAULT 'recording',
    user_id         text,
    started_at      timestamptz,
    priority        text NOT NULL DEFAULT 'normal',
    run_at          timestamptz NOT NULL DEFAULT now(),
    metadata        jsonb NOT NULL DEFAULT '{}',
    -- from here on the archiver alone writes; whatever an INSERT says is replaced
    state           text NOT NULL DEFAULT 'pending',
    reason          text,                                   -- why it ended, or why it was last put back
    detail          jsonb NOT NULL DEFAULT '{}',            -- the facts behind reason
    archive_date    timestamptz NOT NULL DEFAULT now(),     -- the date in its path: started_at, else enqueued_at
    enqueued_at     timestamptz NOT NULL DEFAULT now(),
    claimed_at      timestamptz,
    first_asked_at  timestamptz,
    finished_at     timestamptz,
    worker_id       bigint,
    epoch           bigint NOT NULL DEFAULT 0,              -- raised by every claim and every taking away
    failures        integer NOT NULL DEFAULT 0,             -- attempts that failed
    checks          integer NOT NULL DEFAULT 0,             -- asks answered "in progress": waiting is not failing
    crashes         integer NOT NULL DEFAULT 0,             -- workers that died holding it
    calls           integer NOT NULL DEFAULT 0,             -- API calls spent on it
    -- in this order because people ask for a session by its ID alone
    CONSTRAINT archive_queue_session UNIQUE (session_id, bot, kind),
    CONSTRAINT archive_queue_kind CHECK (kind IN ('recording', 'voicemail') OR state = 'failed'),
    CONSTRAINT archive_queue_run_at CHECK (isfinite(run_at)),
    CONSTRAINT archive_queue_priority CHECK (priority IN ('high', 'normal', 'low')),
    CONSTRAINT archive_queue_state CHECK (state IN (
        'pending',      -- waits until run_at
        'claimed',      -- a worker has it
        'archived',     -- every recording is stored and confirmed
        'unavailable',  -- the platform says that there is none; the answer is kept
        'failed',       -- given up; reason says why, `archiver retry` brings it back
        'cancelled'     -- taken out by a person; reason says who and why
    )),
    CONSTRAINT archive_queue_claimed CHECK ((state = 'claimed') = (worker_id IS NOT NULL)),
    CONSTRAINT archive_queue_finished CHECK ((state IN ('pending', 'claimed')) = (finished_at IS NULL)),
    CONSTRAINT archive_queue_reason CHECK (state NOT IN ('unavailable', 'failed', 'cancelled') OR reason IS NOT NULL)
);
-- What a claim reads: nothing of it is slowed by finished rows, nor by sleeping, held or paused ones.
CREATE INDEX archive_queue_due ON archive_queue (bot, kind, priority, run_at) WHERE state = 'pending';
CREATE INDEX archive_queue_claims ON archive_queue (worker_id) WHERE state = 'claimed';
CREATE INDEX archive_queue_failed ON archive_queue (finished_at) WHERE state = 'failed';
-- Every session changes its row four times or so; the default waits for a fifth of the table, however large that has grown.
ALTER TABLE archive_queue SET (autovacuum_vacuum_scale_factor = 0.01, autovacuum_analyze_scale_factor = 0.01);

CREATE TABLE archived_recordings (
    bot          text NOT NULL,
    session_id   text NOT NULL,
    kind         text NOT NULL,
    ordinal      integer NOT NULL,          -- its place in the platform's answer, from 1
    file_name    text NOT NULL,             -- as stored: safe on every operating system, unique in its session
    store_key    text NOT NULL,             -- relative to storage.url
    bytes        bigint NOT NULL CHECK (bytes > 0),
    sha256       text NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    media_type   text,
    archived_at  timestamptz NOT NULL DEFAULT now(),
    source_name  text NOT NULL,             -- as the platform named it
    flags        text[] NOT NULL DEFAULT '{}',  -- what an auditor should know, such as streamed_wav
    queue_id     bigint NOT NULL REFERENCES archive_queue (id),
    PRIMARY KEY (queue_id, store_key)
);
CREATE INDEX archived_recordings_session ON archived_recordings (session_id);
CREATE INDEX archived_recordings_key ON archived_recordings (store_key);

CREATE TABLE archive_events (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    queue_id  bigint NOT NULL,
    at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    event     text NOT NULL,
    epoch     bigint NOT NULL,
    actor     text,                         -- the worker, or the person
    data      jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX archive_events_session ON archive_events (queue_id, at);
COMMENT ON TABLE archive_events IS 'What happened to each session, append only: every change of state and every answer of the platform.';

CREATE TABLE archive_leftovers (
    queue_id   bigint NOT NULL,
    worker_id  bigint NOT NULL,
    epoch      bigint NOT NULL,
    PRIMARY KEY (queue_id, epoch)
);
COMMENT ON TABLE archive_leftovers IS 'Temporary files that a worker may have left; a row goes when the worker and the file are known to be gone.';

-- Text of outside origin in an indexed column: a long one would break the insert ("index row size exceeds maximum").
CREATE FUNCTION archive_short(value text) RETURNS text LANGUAGE sql IMMUTABLE STRICT
    RETURN CASE WHEN length(value) <= 200 THEN value
                ELSE left(value, 135) || '~' || encode(sha256(convert_to(value, 'UTF8')), 'hex') END;

-- A producer's batch must never be aborted by one bad session ID, and never forge a state.
-- SECURITY DEFINER: a producer needs INSERT on archive_queue, and nothing else.
CREATE FUNCTION archive_admit() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    names text[];
    given jsonb := '{}';
BEGIN
    IF NEW.bot IS NULL THEN
        SELECT coalesce(array_agg(name ORDER BY name), '{}') INTO names FROM archive_bots WHERE configured;
        IF cardinality(names) <> 1 THEN
            RAISE EXCEPTION 'bot is missing, and % bots are configured', cardinality(names)
                USING ERRCODE = 'not_null_violation', COLUMN = 'bot', TABLE = 'archive_queue',
                      HINT = CASE WHEN cardinality(names) = 0
                                  THEN 'name the bot, or run "archiver migrate" with the configuration that has it'
                                  ELSE 'name one of: ' || array_to_string(names, ', ') END;
        END IF;
        NEW.bot := names[1];
    END IF;
    NEW.session_id := coalesce(NEW.session_id, '');
    NEW.kind := coalesce(NEW.kind, 'recording');
    NEW.priority := coalesce(NEW.priority, 'normal');
    NEW.metadata := coalesce(nullif(NEW.metadata, 'null'), '{}');
    NEW.run_at := CASE WHEN NEW.run_at IS NULL OR NOT isfinite(NEW.run_at) THEN now() ELSE NEW.run_at END;
    IF length(NEW.session_id) > 200 OR length(NEW.bot) > 200 OR length(NEW.kind) > 200 THEN
        given := jsonb_build_object('given', jsonb_build_object(
            'bot', NEW.bot, 'session_id', NEW.session_id, 'kind', NEW.kind));
    END IF;
    NEW.state := 'pending';
    NEW.reason := NULL;
    NEW.detail := given;
    NEW.enqueued_at := now();
    NEW.archive_date := CASE WHEN NEW.started_at BETWEEN '1970-01-01Z' AND now() + interval '10 years'
                             THEN NEW.started_at ELSE now() END;
    NEW.claimed_at := NULL;
    NEW.first_asked_at := NULL;
    NEW.finished_at := NULL;
    NEW.worker_id := NULL;
    NEW.epoch := 0;
    NEW.failures := 0;
    NEW.checks := 0;
    NEW.crashes := 0;
    NEW.calls := 0;
    IF NEW.session_id !~ '^[A-Za-z0-9._:-]{1,200}$' THEN
        NEW.state := 'failed';
        NEW.reason := 'invalid_session_id';
        NEW.detail := NEW.detail || jsonb_build_object('expected', '1 to 200 characters of A-Z a-z 0-9 . _ : -');
        NEW.finished_at := now();
    ELSIF NEW.kind NOT IN ('recording', 'voicemail') THEN
        NEW.state := 'failed';
        NEW.reason := 'kind_not_supported';
        NEW.detail := NEW.detail || '{"expected": "recording or voicemail"}';
        NEW.finished_at := now();
    END IF;
    NEW.session_id := archive_short(NEW.session_id);
    NEW.bot := archive_short(NEW.bot);
    NEW.kind := archive_short(NEW.kind);
    RETURN NEW;
END $$;

CREATE TRIGGER archive_queue_admit BEFORE INSERT ON archive_queue
    FOR EACH ROW EXECUTE FUNCTION archive_admit();

-- What may follow what, whoever writes.
CREATE FUNCTION archive_transition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT (CASE OLD.state
                WHEN 'pending' THEN NEW.state IN ('claimed', 'cancelled')
                WHEN 'claimed' THEN true
                ELSE NEW.state = 'pending' END) THEN
        RAISE EXCEPTION 'a session that is % cannot become %', OLD.state, NEW.state
            USING ERRCODE = 'check_violation', HINT = 'use "archiver retry" or "archiver cancel"';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER archive_queue_transition BEFORE UPDATE OF state ON archive_queue
    FOR EACH ROW WHEN (OLD.state IS DISTINCT FROM NEW.state) EXECUTE FUNCTION archive_transition();

-- One history line a session and one wake-up a statement, whoever inserts.
CREATE FUNCTION archive_enqueued() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO archive_events (queue_id, event, epoch, actor, data)
    SELECT id, 'enqueued', 0, session_user,
           jsonb_strip_nulls(jsonb_build_object('priority', priority, 'state', state, 'reason', reason))
    FROM fresh ORDER BY id;
    IF FOUND THEN
        PERFORM pg_notify('archive_queue', '');
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER archive_queue_enqueued AFTER INSERT ON archive_queue
    REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION archive_enqueued();

-- What runs with the owner's rights finds the owner's tables, wherever the producer's own search_path leads.
DO $$ BEGIN
    EXECUTE format('ALTER FUNCTION archive_admit() SET search_path = %I, pg_temp', current_schema());
    EXECUTE format('ALTER FUNCTION archive_enqueued() SET search_path = %I, pg_temp', current_schema());
END $$;

-- Draw up to `wanted` calls from a bot's budget. Windows come shortest first: that one is paced (GCRA with a burst of a
-- hundredth of its limit, which is kept back from the rate, so that no sliding window sees more than its limit), the
-- longer ones are counted. Each window is taken a little longer than it is (`reach`): one call reaches the platform later
-- after it was drawn than the next. `wait` is how long until one more may be had.
CREATE FUNCTION archive_draw(budget text, wanted integer, windows interval[], limits integer[])
RETURNS TABLE (granted integer, wait interval) LANGUAGE plpgsql AS $$
DECLARE
    state archive_budgets;
    clock timestamptz;
    burst integer;
    pace interval;
    reach interval;
    used bigint;
BEGIN
    granted := greatest(wanted, 0);
    wait := interval '0';
    INSERT INTO archive_budgets (key) VALUES (budget) ON CONFLICT DO NOTHING;
    SELECT * INTO state FROM archive_budgets WHERE key = budget FOR UPDATE;
    clock := clock_timestamp();
    IF state.blocked_until > clock THEN
        granted := 0;
        wait := state.blocked_until - clock;
        RETURN NEXT;
        RETURN;
    END IF;
    IF granted = 0 OR cardinality(windows) = 0 THEN
        RETURN NEXT;
        RETURN;
    END IF;
    burst := greatest(1, limits[1] / 100);
    reach := windows[1] + least(windows[1] / 50, interval '2 seconds');
    pace := reach / greatest(1, limits[1] - burst) + interval '1 microsecond';  -- rounded up
    state.arrival := greatest(state.arrival, clock);
    granted := least(granted, floor(burst - extract(epoch FROM state.arrival - clock) / extract(epoch FROM pace) + 1e-6));
    IF granted < 1 THEN
        granted := 0;
        wait := state.arrival - clock - pace * (burst - 1);
    END IF;
    FOR i IN 2 .. cardinality(windows) LOOP
        reach := windows[i] + least(windows[i] / 50, interval '2 seconds');
        SELECT count(*) INTO used FROM archive_calls c WHERE c.key = budget AND c.at > clock - reach;
        granted := least(granted, greatest(0, limits[i] - used));
        IF used >= limits[i] THEN   -- one more when the oldest of the last `limit` calls has left the window
            SELECT greatest(wait, c.at + reach - clock) INTO wait FROM archive_calls c
            WHERE c.key = budget AND c.at > clock - reach ORDER BY c.at DESC OFFSET limits[i] - 1 LIMIT 1;
        END IF;
    END LOOP;
    IF granted > 0 THEN
        UPDATE archive_budgets SET arrival = state.arrival + pace * granted WHERE key = budget;
        IF cardinality(windows) > 1 THEN
            DELETE FROM archive_calls c WHERE c.key = budget AND c.at < clock - windows[cardinality(windows)] * 1.1;
            INSERT INTO archive_calls (key, at) SELECT budget, clock FROM generate_series(1, granted);
        END IF;
    END IF;
    RETURN NEXT;
END $$;

CREATE VIEW archive_sessions AS
SELECT bot, session_id, kind, state, reason, priority, user_id, started_at, enqueued_at, run_at, claimed_at,
       first_asked_at, finished_at, failures, checks, crashes, calls, metadata, detail, id AS queue_id
FROM archive_queue;
COMMENT ON VIEW archive_sessions IS 'One row a session ever enqueued, in exactly one state.';
