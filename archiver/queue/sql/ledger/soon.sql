-- Wait for locks no longer than everybody else can wait for us.
SET LOCAL lock_timeout = '500ms'
