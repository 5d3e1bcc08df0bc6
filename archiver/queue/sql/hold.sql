-- Hold a kind of a bot for the whole fleet. A row: it was not held before. $1 bot, $2 kind, $3 reason, $4 detail, $5 probe after
INSERT INTO archive_holds (bot, kind, reason, detail, probe_at)
VALUES ($1, $2, $3, $4::jsonb, now() + $5::interval)
ON CONFLICT DO NOTHING
RETURNING bot
