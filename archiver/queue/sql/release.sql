-- What held a kind is proven to work again. $1 bot, $2 kind, $3 reasons that are disproven
DELETE FROM archive_holds WHERE bot = $1 AND kind = $2 AND reason = ANY ($3::text[]) RETURNING reason
