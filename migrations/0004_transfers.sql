-- Large recordings: how long what a dead worker left has been lying there.

-- An object store tells parts of an upload by their age alone: those of a later claim of the session are younger.
ALTER TABLE archive_leftovers ADD COLUMN left_at timestamptz NOT NULL DEFAULT clock_timestamp();
