-- Steering and watching a fleet: what ended when, who paused which bot, and how far old history has been removed.

-- For the rates of `status`, the failures that a drain counts, and the sessions whose history may go.
CREATE INDEX archive_queue_ended ON archive_queue (state, finished_at, id) WHERE finished_at IS NOT NULL;
DROP INDEX archive_queue_failed;

CREATE TABLE archive_bot_events (
    id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    bot    text NOT NULL,
    at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    event  text NOT NULL,                   -- paused, resumed
    actor  text NOT NULL,
    data   jsonb NOT NULL DEFAULT '{}'
);
COMMENT ON TABLE archive_bot_events IS 'What people did to whole bots, append only.';

-- A place in the order of ends, not a mark on each session: ten million rows need not be rewritten, nor looked at again. An
-- index on the age of events would not do: once freed space is filled again, old and new lie side by side.
CREATE TABLE archive_pruning (
    one          boolean PRIMARY KEY DEFAULT true CHECK (one),
    finished_at  timestamptz NOT NULL DEFAULT '-infinity',
    queue_id     bigint NOT NULL DEFAULT 0
);
COMMENT ON TABLE archive_pruning IS 'One row: sessions that ended up to here have had their history removed (database.keep_history).';
INSERT INTO archive_pruning DEFAULT VALUES;

COMMENT ON TABLE archive_events IS
    'What happened to each session, append only: every change of state and every answer of the platform. database.keep_history says whether it goes one day.';
ALTER TABLE archive_events SET (autovacuum_vacuum_scale_factor = 0.02);
