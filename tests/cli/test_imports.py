"""What a command imports before it does anything: a person waits for all of it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from archiver.cli.app import COMMANDS

HEAVY = {
    "aiohttp", "archiver.simulator", "azure", "botocore", "boto3", "cryptography", "jwt", "prometheus_client", "rich",
    "structlog",
}  # fmt: skip
"""What only speaking to the platform or a bucket, drawing on a terminal and writing a line of log need."""

QUEUE = {"archiver.queue.sessions", "archiver.outcome", "archiver.postgres.embedded"}
"""What workers need and whoever enqueues, and what an embedded database does."""

READING = ("show", "status", "workers", "list", "find", "nights", "retry", "cancel", "accept", "resume", "healthcheck")

DATABASE_ALONE = (*READING, "enqueue", "pause", "migrate")


def imported_by(code: str) -> set[str]:
    program = f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    modules: list[str] = json.loads(done.stdout)
    return set(modules)


@pytest.mark.parametrize("command", DATABASE_ALONE)
def test_a_command_that_asks_the_database_alone_imports_nothing_heavy(command: str) -> None:
    code = f"""
import archiver.cli.{command}
from archiver.observe import logs
logs.configure(level="info", form="console")
logs.logger("archiver")
"""
    imported = imported_by(code)
    assert imported & HEAVY == set()
    assert command not in READING or imported & QUEUE == set()


def test_the_list_of_commands_imports_none_of_them() -> None:
    modules = imported_by("import archiver.cli.app")
    assert modules & (HEAVY | {"asyncio", "asyncpg", "pydantic"} | {f"archiver.cli.{command}" for command in COMMANDS}) == set()
