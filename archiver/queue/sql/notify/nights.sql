-- One message for the end of each night: of these accounts, no older than :look_back, nor than when nights were told of first.
INSERT INTO archive_notifications (matter, event, payload)
SELECT n.matter, 'night', n.payload
FROM (
    SELECT a.id, format('night:%s:%s', a.id, extract(epoch FROM a.made_at)) AS matter,
           jsonb_build_object('account', a.id, 'made_at', a.made_at, 'from', a.from_at, 'to', a.to_at, 'complete', a.complete, 'counts', a.counts,
                              'open_days', (SELECT count(*) FROM archive_account_days d WHERE d.account_id = a.id AND d.whole AND NOT d.complete),
                              'problems', jsonb_array_length(a.problems),
                              'failed_bots', (SELECT coalesce(jsonb_agg(f.bot), '[]') FROM (SELECT bot FROM jsonb_object_keys(a.failed_bots) AS bot
                                                                                          ORDER BY bot LIMIT :listed::integer) f),
                              'failed_bots_total', (SELECT count(*) FROM jsonb_object_keys(a.failed_bots))) AS payload
    FROM archive_accounts a CROSS JOIN archive_notifier f
    WHERE a.id = ANY (:ids::bigint[]) AND a.command = 'nightly' AND a.made_at >= greatest((f.floors ->> 'night')::timestamptz, clock_timestamp() - :look_back::interval)
) n
ORDER BY n.id
ON CONFLICT (matter) DO NOTHING
RETURNING id
