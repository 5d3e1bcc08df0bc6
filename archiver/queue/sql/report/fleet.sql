-- Holds, pauses, what people last did to bots, and blocked budgets, for status.
SELECT clock_timestamp() AS at,
       (SELECT coalesce(jsonb_agg(to_jsonb(h) ORDER BY h.bot, h.kind), '[]') FROM archive_holds h) AS holds,
       (SELECT coalesce(jsonb_agg(jsonb_build_object('bot', name, 'since', paused_at, 'by', paused_by) ORDER BY name), '[]')
        FROM archive_bots WHERE paused_at IS NOT NULL) AS pauses,
       (SELECT coalesce(jsonb_agg(to_jsonb(e) - 'id' ORDER BY e.id), '[]')
        FROM (SELECT * FROM archive_bot_events ORDER BY id DESC LIMIT 20) e) AS bot_events,
       (SELECT coalesce(jsonb_agg(jsonb_build_object('budget', b.key, 'until', b.blocked_until) ORDER BY b.key), '[]')
        FROM archive_budgets b WHERE b.blocked_until > clock_timestamp()) AS blocked
