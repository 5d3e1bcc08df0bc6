-- Sessions by bot and state.
SELECT bot, state, sum(sessions)::bigint AS sessions FROM archive_counts GROUP BY bot, state
