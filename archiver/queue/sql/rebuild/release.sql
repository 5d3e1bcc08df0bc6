-- Some rows, of which one may be refused.
RELEASE SAVEPOINT rebuild
