-- Kinds of these bots that are held for rejected credentials, and the fingerprint of these.
SELECT bot, kind, detail ->> 'credentials' AS credentials FROM archive_holds
WHERE bot = ANY (:bots::text[]) AND reason = 'credentials_rejected' ORDER BY bot, kind
