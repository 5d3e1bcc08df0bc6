-- As enqueue/sessions, by a role that may do nothing else: the owner's function does it.
SELECT added, raised, woken
FROM archive_enqueue(:bots::text[], :session_ids::text[], :kinds::text[], :priorities::text[], :user_ids::text[],
                     :started_at::timestamptz[], :ended_at::timestamptz[], :metadata::jsonb[], :actor::text)
