-- Kinds that are held for refused credentials, and whose these were. $1 bots
SELECT bot, kind, detail ->> 'credentials' AS credentials FROM archive_holds
WHERE bot = ANY ($1::text[]) AND reason = 'credentials_rejected' ORDER BY bot, kind
