-- One more call from a bot's budget. $1 budget, $2 windows, $3 limits
SELECT granted, wait FROM archive_draw($1, 1, $2::interval[], $3::integer[])
