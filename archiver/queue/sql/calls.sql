-- Calls drawn from budgets in the windows that end now, where they are counted one by one. $1 budgets, $2 windows
SELECT k.key, k.length, (SELECT count(*) FROM archive_calls c WHERE c.key = k.key AND c.at > now() - k.length) AS calls
FROM unnest($1::text[], $2::interval[]) AS k (key, length)
