-- Calls drawn from budgets in the windows that end now, where they are counted one by one (arrays of one length).
SELECT k.key, k.length, (SELECT count(*) FROM archive_calls c WHERE c.key = k.key AND c.at > now() - k.length) AS calls
FROM unnest(:budgets::text[], :windows::interval[]) AS k (key, length)
