-- Hold a kind of a bot for the whole fleet; of one that is held for the same reason, keep the facts of the last refusal. `fresh`:
-- it was not held before.
INSERT INTO archive_holds AS h (bot, kind, reason, detail, probe_at)
VALUES (:bot, :kind, :reason, :detail::jsonb, now() + :probe_after::interval)
ON CONFLICT (bot, kind) DO UPDATE SET detail = excluded.detail WHERE h.reason = excluded.reason
RETURNING xmax = 0 AS fresh     -- an update of a row leaves its mark there
