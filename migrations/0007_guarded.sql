-- phase: expand
-- min_program: 0.1
-- What a migration's header says is kept with it.

-- A producer who never commits must not make every other one wait behind this.
SET LOCAL lock_timeout = '1min';

ALTER TABLE archive_migrations
    ADD COLUMN phase text,
    ADD COLUMN transactional boolean,
    ADD COLUMN min_program text;
