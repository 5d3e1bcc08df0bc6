"""docs/restore-drill.md, run as a reader would run it; and what is rebuilt where the store and its template changed meanwhile."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import pytest

from archiver.evidence.keys import SealingKey
from archiver.simulator.platform import Simulator
from tests.programs import installed
from tests.s3_servers import BUCKET, S3Server
from tests.system.account.conftest import DAY, NEXT, made
from tests.system.conftest import ROOT, Program
from tests.system.test_tutorial import Terminal, program, terminal
from tests.system.tutorial_page import Reading, steps_of

__all__ = ["program", "terminal"]

PAGE = ROOT / "docs/restore-drill.md"


@pytest.mark.timeout(180)
async def test_the_drill_prints_what_it_says(program: Program, terminal: Terminal) -> None:
    installed("ssh-keygen", "openssh-client")
    reading = Reading()
    wrong: list[str] = []
    for step in steps_of(PAGE):
        assert step.command is not None
        printed = await terminal.run(reading.here(step.command))
        after = reading.read(step.text, printed)
        if after is None:
            said = [f"line {step.line}: $ {step.command}", "the page says:", *step.text, "it prints:", *printed]
            wrong.append("\n".join(said))
        reading = after or reading
    assert not wrong, "\n\n".join(wrong)


def configured(data: Mapping[str, Any], **changed: Any) -> dict[str, Any]:
    """With a key."""
    evidence = {"key_file": "evidence.key", "origin": "archive.example/calls"}
    return {**data, "evidence": evidence, **changed}


async def play(archiver: Program, simulator: Simulator) -> None:
    """A day's calls: with recordings, without, and some that fail, for which somebody answers."""
    simulator.set_history(made(calls=30, unavailable=2, failing=2))
    assert (await archiver("nightly", "--from", DAY, "--to", NEXT)).code == 3
    assert (await archiver("accept", "--all", "--reason", "known")).code == 0


def calls_of(document: Any) -> Any:
    """What an account says of the calls."""
    return {name: value for name, value in document.items() if name not in ("account", "evidence", "made_at")}


def is_same(one: Any, two: Any) -> bool:
    """But for fractions of a second: records have milliseconds, and of asking the time of the answer."""
    if isinstance(one, dict) and isinstance(two, dict):
        return one.keys() == two.keys() and all(is_same(one[key], two[key]) for key in one)
    if isinstance(one, list) and isinstance(two, list):
        return len(one) == len(two) and all(map(is_same, one, two))
    if isinstance(one, str) and isinstance(two, str) and one != two:
        return abs(datetime.fromisoformat(one) - datetime.fromisoformat(two)) < timedelta(seconds=1)
    return bool(one == two)


async def drop(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    finally:
        await connection.close()


@pytest.mark.parametrize("place", ["folder", "bucket"])
async def test_a_lost_database_gives_the_same_account(
    place: str, archiver: Program, data: dict[str, Any], simulator: Simulator, database_url: str, request: pytest.FixtureRequest
) -> None:
    SealingKey.make(archiver.folder / "evidence.key", "test")
    if place == "bucket":
        server: S3Server = request.getfixturevalue("seaweedfs")
        storage = {"storage": {"url": f"s3://{BUCKET}/rebuild-{os.getpid()}"}, "storage.s3": {**server.keys}}
    else:
        storage = {"storage": dict(data["storage"])}
    archiver.configure(configured(data, **storage))
    await play(archiver, simulator)
    before = await archiver("reconcile", "--from", DAY, "--to", NEXT, "--format", "json")
    assert (await archiver("seal")).code == 0

    await drop(database_url)
    if place == "folder":
        shutil.move(archiver.folder / "store", archiver.folder / "moved")
        storage["storage"]["url"] = (archiver.folder / "moved").as_uri()
    storage["storage"]["path"] = "{kind}s/{bot}/{date:%Y/%m}/{session_id}/{file_name}"
    archiver.configure(configured(data, **storage))
    (await archiver("rebuild")).refused(1, "archiver migrate")
    assert (await archiver("migrate")).code == 0
    rebuilt = await archiver("rebuild", "--json")
    assert rebuilt.code == 0, rebuilt
    assert (rebuilt.document["lost"], rebuilt.document["sealed"]) == ({}, True)
    audit = await archiver("audit", "--deep")
    assert audit.code == 0, audit
    after = await archiver("reconcile", "--from", DAY, "--to", NEXT, "--format", "json")
    assert after.code == before.code
    assert is_same(calls_of(after.document), calls_of(before.document))
    (await archiver("rebuild")).refused(2, "has sessions, or a ledger, already", "--catch-up")
