-- Wait for every statement that is changing sessions, and let no other begin until this transaction ends. Whoever may not change
-- every column of them asks the owner's function to.
DO '
BEGIN
    IF coalesce(has_function_privilege(to_regprocedure(''archive_lock_sessions()''), ''EXECUTE''), false) THEN
        PERFORM archive_lock_sessions();
    ELSE
        LOCK TABLE archive_queue IN SHARE MODE;
    END IF;
END'
