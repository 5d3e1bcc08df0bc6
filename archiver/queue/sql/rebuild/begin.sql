-- Rows are put in as they were, not as new ones. Nobody else adds any until the transaction ends.
ALTER TABLE archive_queue DISABLE TRIGGER archive_queue_admit, DISABLE TRIGGER archive_queue_number, DISABLE TRIGGER archive_queue_enqueued, DISABLE TRIGGER archive_queue_refused,
    DISABLE TRIGGER archive_queue_unaccepted, DISABLE TRIGGER archive_queue_transition
