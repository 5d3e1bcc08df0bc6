-- Learn from first asks when recordings are ready: of a bot's calls that had ended within the hour, some were asked for too early, or
-- so many in time (settle/outcomes' lessons; arrays of one length). One step up a batch: its asks were timed by one figure.
-- A weighted up-down staircase (Kaernbach 1991): where one ask in twenty comes too early, the steps cancel out.
WITH taught AS MATERIALIZED (
    SELECT b.name, l.too_early, l.in_time
    FROM archive_bots b
    JOIN unnest(:bots::text[], :too_early::boolean[], :in_time::integer[]) AS l (name, too_early, in_time) USING (name)
    ORDER BY b.name FOR UPDATE OF b
)
UPDATE archive_bots b
SET first_ask = greatest(interval '1 second', least(interval '1 hour',
                         b.first_ask * CASE WHEN t.too_early THEN 1.2 ELSE greatest(power(0.99, t.in_time), 0.9) END))
FROM taught t WHERE b.name = t.name
