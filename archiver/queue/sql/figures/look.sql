-- The figures as they were read last: how long ago, by this clock, and whether they are due to be read anew. What was written before the
-- clock was set back is due.
SELECT document, CASE WHEN isfinite(at) THEN extract(epoch FROM clock_timestamp() - at) ELSE 'infinity' END::double precision AS age,
       at NOT BETWEEN clock_timestamp() - :fresh::interval AND clock_timestamp() + interval '1 second'
       AND taken_until NOT BETWEEN clock_timestamp() AND clock_timestamp() + :turn::interval AS due
FROM archive_figures
