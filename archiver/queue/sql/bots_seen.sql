-- Record the configured names. $1 names, $2 whether these are all there are (migrate) or some (a worker's start)
WITH named AS (
    INSERT INTO archive_bots (name) SELECT DISTINCT name FROM unnest($1::text[]) name ORDER BY name
    ON CONFLICT (name) DO UPDATE SET configured = true, seen_at = now()
)
UPDATE archive_bots SET configured = false WHERE $2 AND configured AND name <> ALL ($1)
