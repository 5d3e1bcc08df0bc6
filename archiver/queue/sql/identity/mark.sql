-- The store at :url has the marker.
UPDATE archive_identity SET store_marked_at = coalesce(store_marked_at, clock_timestamp()), store_url = :url
WHERE store_marked_at IS NULL OR store_url IS DISTINCT FROM :url
