-- Rows of the roll-up that count nothing any more: what waited on a day has ended. Locked in the order in which they are folded, and
-- none that somebody folds into just now.
WITH empty AS MATERIALIZED (
    SELECT ctid FROM archive_rollup
    WHERE sessions = 0 AND accepted = 0 AND rechecks = 0 AND calls = 0 AND files = 0 AND bytes = 0 AND milliseconds = 0
    ORDER BY bot, state, day, kind, priority, reason FOR UPDATE SKIP LOCKED
)
DELETE FROM archive_rollup WHERE ctid = ANY (ARRAY(SELECT ctid FROM empty))
