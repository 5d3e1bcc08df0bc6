-- A held kind works again. $1 bot, $2 kind
DELETE FROM archive_holds WHERE bot = $1 AND kind = $2 RETURNING reason
