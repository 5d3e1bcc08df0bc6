-- Draw one more call from a budget, if it has one.
SELECT granted, wait FROM archive_draw(:budget, 1, :windows::interval[], :limits::integer[])
