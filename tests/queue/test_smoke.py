from __future__ import annotations

from archiver.queue.database import Database, statement, statement_names


async def test_every_statement_prepares_against_the_migrated_schema(database: Database) -> None:
    for name in statement_names():
        async with database.connection() as connection:
            await connection.prepare(statement(name))
