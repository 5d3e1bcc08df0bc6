-- Some rows, of which one may be refused.
SAVEPOINT rebuild
