-- Nothing of these bots is claimed any more. $1 names (null: all), $2 who
UPDATE archive_bots SET paused_at = coalesce(paused_at, now()), paused_by = coalesce(paused_by, $2)
WHERE $1::text[] IS NULL OR name = ANY ($1)
RETURNING name
