-- Rows of the roll-up that count nothing any more: what waited on a day has ended.
DELETE FROM archive_rollup
WHERE sessions = 0 AND accepted = 0 AND rechecks = 0 AND calls = 0 AND files = 0 AND bytes = 0 AND milliseconds = 0
