-- Which calls took place: what the platform's listings say of each, and how far they have been read.

ALTER TABLE archive_queue
    ADD COLUMN call jsonb NOT NULL DEFAULT '{}',    -- what a listing said of the call, as far as discovery.keep lets it be kept
    ADD COLUMN files integer,                       -- how many files the platform's last answer listed
    ADD COLUMN listed_at timestamptz;               -- when a listing last brought news of it; from then on its times are the platform's
-- How long its audio plays, where its format tells; null for what was stored before this column was there, too.
ALTER TABLE archived_recordings ADD COLUMN seconds double precision CHECK (seconds >= 0);

-- The calls of a stretch of time, for their account.
CREATE INDEX archive_queue_started ON archive_queue (bot, started_at) WHERE started_at IS NOT NULL;

CREATE TABLE archive_discoveries (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    bot           text NOT NULL,
    purpose       text NOT NULL,                    -- discover, nightly, backfill
    from_at       timestamptz NOT NULL,             -- calls that began from here on
    to_at         timestamptz NOT NULL,             -- and before here
    newest_first  boolean NOT NULL,
    source        text,                             -- sessions or call_details: what told it last
    reached       timestamptz NOT NULL,             -- all between here and its beginning (newest_first: its end) is in the queue
    calls         bigint NOT NULL DEFAULT 0,        -- listed so far
    added         bigint NOT NULL DEFAULT 0,        -- of these, new to the queue
    problems      jsonb NOT NULL DEFAULT '[]',      -- stretches of time that could not be listed whole, or whose total disagreed
    started_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at   timestamptz,                      -- read to its end
    CONSTRAINT archive_discoveries_span CHECK (from_at < to_at AND reached BETWEEN from_at AND to_at)
);
CREATE INDEX archive_discoveries_bot ON archive_discoveries (bot, purpose, to_at);
COMMENT ON TABLE archive_discoveries IS 'Each reading of the platform''s listings: which stretch of time, how far it has come, what was found.';

CREATE OR REPLACE VIEW archive_sessions AS
SELECT bot, session_id, kind, state, reason, priority, user_id, started_at, enqueued_at, run_at, claimed_at,
       first_asked_at, finished_at, failures, checks, crashes, calls, metadata, detail, id AS queue_id, ended_at, call, files, listed_at
FROM archive_queue;
