-- Release a kind that is held for one of these reasons: they are disproven.
DELETE FROM archive_holds WHERE bot = :bot AND kind = :kind AND reason = ANY (:reasons::text[]) RETURNING reason
