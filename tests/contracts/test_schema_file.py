"""The schema that people read is the one that the migrations make."""

from __future__ import annotations

import asyncio

import pytest

from archiver.postgres.migrations import migrations
from tests.schema_file import SCHEMA, dump_schema

pytestmark = pytest.mark.once  # what Postgres does is the same under every Python


async def test_the_schema_file_is_what_the_migrations_make(database_url: str) -> None:
    made = await asyncio.to_thread(dump_schema, database_url)
    assert SCHEMA.read_text(encoding="utf-8") == made, "run `python -m tests.schema_file`"


def test_it_is_no_migration() -> None:
    assert [one.name for one in migrations()] == [path.stem[5:] for path in sorted(SCHEMA.parent.glob("[0-9]*.sql"))]
