-- Whether this role may change sessions, and not only insert them.
SELECT has_any_column_privilege('archive_queue', 'UPDATE') AS may_change
