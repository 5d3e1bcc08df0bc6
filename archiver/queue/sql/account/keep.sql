-- Keep an account of calls, and those of its days (arrays of one length).
WITH made AS (
    INSERT INTO archive_accounts (made_by, command, version, from_at, to_at, complete, counts, problems, failed_bots)
    VALUES (:actor, :command, :version, :from_at, :to_at, :complete, :counts::jsonb, :problems::jsonb, :failed_bots::jsonb)
    RETURNING id, made_at, made_by, from_at, to_at, complete, counts
), days AS (
    INSERT INTO archive_account_days (account_id, bot, day, time_zone, from_at, to_at, whole, complete, open_calls, counts)
    SELECT made.id, d.* FROM made, unnest(:bots::text[], :days::date[], :time_zones::text[], :days_from::timestamptz[], :days_to::timestamptz[],
                                         :whole::boolean[], :days_complete::boolean[], :days_open::bigint[], :days_counts::jsonb[]) d
), recorded AS (
    INSERT INTO archive_ledger_outbox (event, body)
    SELECT 'account', jsonb_build_object('account', id, 'bot', null, 'from', from_at, 'to', to_at, 'complete', complete, 'counts', counts, 'by', made_by)
    FROM made WHERE EXISTS (SELECT FROM archive_ledger_head)
)
SELECT id, made_at FROM made
