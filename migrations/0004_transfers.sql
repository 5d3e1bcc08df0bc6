-- Large recordings: how long what a dead worker left has been lying there.

-- An object store tells parts of an upload by their age alone: those of a later claim of the session are younger.
ALTER TABLE archive_leftovers ADD COLUMN left_at timestamptz NOT NULL DEFAULT clock_timestamp();

-- What a worker has on its way, written by itself every other second while that takes long. It stays in the worker's own row: one
-- write, nothing to clean up, and gone with the worker. Not in the queue's rows: those are the sessions' history.
ALTER TABLE archive_workers
    ADD COLUMN progress jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN progress_at timestamptz;
