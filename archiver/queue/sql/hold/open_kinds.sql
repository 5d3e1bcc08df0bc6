-- Those of these bots that nobody has paused, each with the first of its kinds that is not held, if there is one.
SELECT b.name AS bot, min(k.kind) AS kind
FROM archive_bots b
CROSS JOIN unnest('{recording,voicemail}'::text[]) AS k (kind)
WHERE b.name = ANY (:bots) AND b.paused_at IS NULL
  AND NOT EXISTS (SELECT FROM archive_holds h WHERE h.bot = b.name AND h.kind = k.kind)
GROUP BY b.name
