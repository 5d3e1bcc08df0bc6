from __future__ import annotations

import re
import socket
from typing import Any

import pytest

from tests.system.conftest import Program

COMMANDS = [
    ["status"],
    ["show", "x"],
    ["enqueue", "x"],
    ["worker", "--drain"],
    ["verify"],
    ["retry", "x"],
    ["pause", "--all"],
    ["healthcheck"],
]


async def test_migrate_creates_the_tables_and_may_be_run_again(
    archiver: Program, data: dict[str, Any], empty_database_url: str
) -> None:
    data["database"]["url"] = empty_database_url
    archiver.configure(data)

    first, second = await archiver("migrate"), await archiver("migrate")

    assert (first.code, first.stderr) == (0, "")
    assert "applied 0001_queue" in first.stdout
    assert (second.code, second.stdout, second.stderr) == (0, "the database is up to date\n", "")
    assert (await archiver("enqueue", "x")).code == 0


async def test_migrate_tells_of_a_schema_in_which_everybody_may_create(archiver: Program, sql: Any) -> None:
    assert (await archiver("migrate")).stderr == ""
    await sql.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
    result = await archiver("migrate")
    assert result.code == 0
    assert "REVOKE CREATE ON SCHEMA public FROM PUBLIC" in result.stderr


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: words[0])
async def test_a_database_that_was_never_migrated_is_told_with_the_mend(
    archiver: Program, data: dict[str, Any], empty_database_url: str, command: list[str]
) -> None:
    data["database"]["url"] = empty_database_url
    archiver.configure(data)
    (await archiver(*command)).refused(1, "never migrated", "archiver migrate")


@pytest.mark.parametrize("command", [["status"], ["migrate"]], ids=lambda words: words[0])
async def test_a_database_newer_than_the_program_is_refused(archiver: Program, sql: Any, command: list[str]) -> None:
    await sql.execute("INSERT INTO archive_migrations (version, name, sha256) SELECT max(version) + 1, 'future', 'x' "
                      "FROM archive_migrations")  # fmt: skip
    (await archiver(*command)).refused(1, "this is archiver", "upgrade this archiver")


async def test_a_newer_database_that_permits_this_program_is_used_and_left_as_it_is(archiver: Program, sql: Any) -> None:
    await sql.execute("INSERT INTO archive_migrations (version, name, sha256, min_program) "
                      "SELECT max(version) + 1, 'future', 'x', '0.2' FROM archive_migrations")  # fmt: skip
    migrated = await archiver("migrate")
    assert migrated.code == 0
    assert re.fullmatch(r"the database is at version \d+, newer than this program \(\d+\), which works with it: nothing to do\n",
                        migrated.stdout)  # fmt: skip
    status = await archiver("status", "--json")
    assert (status.code, list(status.document["bots"])) == (0, ["bot"])
    assert "database_newer" in status.stderr


@pytest.mark.parametrize("command", [["status"], ["worker"], ["migrate"]], ids=lambda words: words[0])
async def test_an_unreachable_database_is_told(archiver: Program, data: dict[str, Any], command: list[str]) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        data["database"]["url"] = f"postgresql://archiver:hunter2hunter2@127.0.0.1:{nobody.getsockname()[1]}/archiver"
        archiver.configure(data)
        result = await archiver(*command)
    result.refused(1, "the database cannot be reached", "database.url")
    assert "hunter2" not in result.stderr


async def test_a_server_beyond_this_machine_without_tls_is_refused_and_both_ways_on_are_told(
    archiver: Program, data: dict[str, Any], database_url: str
) -> None:
    data["database"]["url"] = database_url.replace("@127.0.0.1:", "@127.1:")  # to the resolver alone the same
    archiver.configure(data)
    result = await archiver("migrate")
    result.refused(1, "database.url: the server has no TLS, so nothing was sent to it", "sslrootcert=FILE", "sslmode=disable")
    data["database"]["url"] += "?sslmode=disable"
    archiver.configure(data)
    assert (await archiver("migrate")).code == 0


async def test_a_wrong_password_and_a_missing_database_are_told_without_the_password(
    archiver: Program, data: dict[str, Any], database_url: str
) -> None:
    scheme, _, rest = database_url.partition("://")
    place = rest.rpartition("@")[2]
    data["database"]["url"] = f"{scheme}://archiver:wr0ng-p%40ssword@{place}"
    archiver.configure(data)
    result = await archiver("--log-level", "debug", "status")
    result.refused(1, "password authentication failed", "database.url")
    assert "wr0ng" not in result.stderr

    data["database"]["url"] = database_url.rpartition("/")[0] + "/no_such_database"
    archiver.configure(data)
    (await archiver("status")).refused(1, '"no_such_database" does not exist', "create the database")


@pytest.mark.parametrize("command", [["migrate"], ["status"], ["worker", "--drain"]], ids=lambda words: words[0])
async def test_a_database_that_cannot_hold_every_name_is_refused(
    archiver: Program, data: dict[str, Any], latin_database_url: str, command: list[str]
) -> None:
    data["database"]["url"] = latin_database_url
    archiver.configure(data)
    (await archiver(*command)).refused(1, "LATIN1", "ENCODING 'UTF8'", "pg_dump")


async def test_an_embedded_database_needs_no_migrate_and_none_is_left_running(archiver: Program, data: dict[str, Any]) -> None:
    data["database"]["url"] = "embedded:queue"
    archiver.configure(data)

    result = await archiver("enqueue", "x", "--json")

    assert result.document["new"] == 1
    assert (archiver.folder / "queue/password").stat().st_mode & 0o777 == 0o600
    assert not (archiver.folder / "queue/data/postmaster.pid").exists()
