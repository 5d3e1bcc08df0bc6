-- Of each budget: the part that is left of its fullest window, for how long it is blocked, and until one more call may be drawn if a
-- window but the first is spent. Windows come as arrays of one length, the shortest of each budget marked :first; where its calls are not
-- :counted one by one, what is left of that one's pace.
SELECT k.key,
       greatest((SELECT extract(epoch FROM b.blocked_until - now()) FROM archive_budgets b
                 WHERE b.key = k.key AND isfinite(b.blocked_until)), 0)::double precision AS blocked,
       min(w.remaining)::double precision AS remaining, coalesce(max(w.wait), 0)::double precision AS wait
FROM unnest(:budgets::text[]) k (key)
LEFT JOIN LATERAL (
    SELECT CASE WHEN g.counted THEN greatest(1 - u.used::numeric / g.calls, 0)
                WHEN p.arrival > now() AND isfinite(p.arrival)
                    THEN greatest(1 - extract(epoch FROM p.arrival - now()) / extract(epoch FROM g.length) * g.calls
                                      / greatest(1, g.calls / 100), 0)
                ELSE 1 END AS remaining,
           CASE WHEN g.counted AND NOT g.first AND u.used >= g.calls THEN (
               SELECT greatest(extract(epoch FROM c.at + g.length - now()), 0) FROM archive_calls c
               WHERE c.key = k.key AND c.at > now() - g.length ORDER BY c.at DESC OFFSET g.calls - 1 LIMIT 1) END AS wait
    FROM unnest(:keys::text[], :lengths::interval[], :limits::integer[], :first::boolean[], :counted::boolean[])
         AS g (key, length, calls, first, counted)
    CROSS JOIN LATERAL (
        SELECT count(*) AS used FROM archive_calls c WHERE g.counted AND c.key = k.key AND c.at > now() - g.length AND c.at <= now()) u
    LEFT JOIN archive_budgets p ON p.key = k.key
    WHERE g.key = k.key
) w ON true
GROUP BY k.key ORDER BY k.key
