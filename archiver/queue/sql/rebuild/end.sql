-- As it was before.
ALTER TABLE archive_queue ENABLE TRIGGER archive_queue_admit, ENABLE TRIGGER archive_queue_number, ENABLE TRIGGER archive_queue_enqueued, ENABLE TRIGGER archive_queue_refused,
    ENABLE TRIGGER archive_queue_unaccepted, ENABLE TRIGGER archive_queue_transition
