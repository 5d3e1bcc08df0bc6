-- phase: expand
-- min_program: 0.1
-- Which archive this is, and which store is its own: a marker in the store has the same ID. A disk that is not mounted, or the store of
-- another archive, is recognised by it before anything is written there.
SET LOCAL lock_timeout = '10s';

CREATE TABLE archive_identity (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    archive_id uuid NOT NULL DEFAULT gen_random_uuid(),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    store_marked_at timestamptz,
    store_url text
);
COMMENT ON TABLE archive_identity IS 'One row: the archive''s ID, when its store was first known to have its marker, and where that store was last.';
COMMENT ON COLUMN archive_identity.store_url IS 'storage.url of the worker that last started.';
INSERT INTO archive_identity DEFAULT VALUES;

ALTER TABLE archive_workers ADD COLUMN store text;
COMMENT ON COLUMN archive_workers.store IS 'storage.url of the worker. Null: of a version that did not say it.';
