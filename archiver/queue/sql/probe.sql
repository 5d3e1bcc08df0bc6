-- Take the turn to try a held kind of a bot again; the next turn comes after $3. No row: somebody else took it.
-- $1 bot, $2 kind
UPDATE archive_holds SET probe_at = now() + $3::interval
WHERE bot = $1 AND kind = $2 AND probe_at <= now()
RETURNING kind
