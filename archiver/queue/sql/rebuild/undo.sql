-- Some rows, of which one may be refused.
ROLLBACK TO SAVEPOINT rebuild
