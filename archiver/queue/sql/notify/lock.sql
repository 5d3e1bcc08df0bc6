-- Be the only one who looks, until the transaction ends.
SELECT one FROM archive_notifier FOR UPDATE
