-- Take the turn to read the figures, if they are due (see look) and nobody has it. Nobody waits for it: whoever finds the row locked has
-- lost the race. A turn of which nothing comes runs out.
WITH due AS MATERIALIZED (
    SELECT one FROM archive_figures
    WHERE at NOT BETWEEN clock_timestamp() - :fresh::interval AND clock_timestamp() + interval '1 second'
      AND taken_until NOT BETWEEN clock_timestamp() AND clock_timestamp() + :turn::interval
    FOR UPDATE SKIP LOCKED
)
UPDATE archive_figures f SET turn = :me::uuid, taken_until = clock_timestamp() + :turn FROM due WHERE f.one = due.one
RETURNING f.document
