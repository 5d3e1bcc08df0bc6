-- Those of the sessions given (arrays of one length) that the database has, by their place.
SELECT g.n FROM unnest(:bots::text[], :session_ids::text[], :kinds::text[]) WITH ORDINALITY AS g (bot, session_id, kind, n)
WHERE EXISTS (SELECT FROM archive_queue q WHERE (q.session_id, q.bot, q.kind) = (g.session_id, g.bot, g.kind))
