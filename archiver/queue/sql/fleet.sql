-- Holds, pauses, blocked budgets and live workers, for status.
SELECT (SELECT coalesce(jsonb_agg(to_jsonb(h) ORDER BY h.bot, h.kind), '[]') FROM archive_holds h) AS holds,
       (SELECT coalesce(jsonb_agg(name ORDER BY name), '[]') FROM archive_bots WHERE paused_at IS NOT NULL) AS paused,
       (SELECT coalesce(jsonb_agg(jsonb_build_object('id', w.id, 'host', w.host, 'pid', w.pid, 'version', w.version,
                   'started_at', w.started_at, 'renewed_at', w.renewed_at, 'alive', w.expires_at > clock_timestamp(),
                   'claimed', (SELECT count(*) FROM archive_queue q WHERE q.state = 'claimed' AND q.worker_id = w.id))
                   ORDER BY w.id), '[]') FROM archive_workers w) AS workers,
       (SELECT coalesce(jsonb_agg(jsonb_build_object('budget', b.key, 'until', b.blocked_until) ORDER BY b.key), '[]')
        FROM archive_budgets b WHERE b.blocked_until > clock_timestamp()) AS blocked
