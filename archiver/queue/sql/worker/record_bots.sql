-- Record the configured names: all there are (:complete; `migrate`), or some (a worker's start).
WITH named AS (
    INSERT INTO archive_bots (name) SELECT DISTINCT name FROM unnest(:bots::text[]) name ORDER BY name
    ON CONFLICT (name) DO UPDATE SET configured = true, seen_at = now()
)
UPDATE archive_bots SET configured = false WHERE :complete AND configured AND name <> ALL (:bots)
