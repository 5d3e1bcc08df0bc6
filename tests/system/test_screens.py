"""What people see on a terminal of 80 columns: lines that fit, values in words, one form for every time."""

from __future__ import annotations

import asyncio
import os
import pty
import re
from contextlib import suppress
from typing import Any

import pytest

from archiver.simulator.platform import Simulator
from tests.system.conftest import Program, eventually

WIDTH = 80
REPR = re.compile(r"\b(True|False|None)\b|datetime\.|\w\(\)|[{\[(,:=] ?'|\\x[0-9a-f]{2}")
TIME = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d\S*( UTC)?")
SECONDS, MILLISECONDS = (re.compile(rf"\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d{more} UTC") for more in ("", r"\.\d{3}"))


async def screen(archiver: Program, *arguments: str) -> str:
    """What a command shows there."""
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *archiver.command, "--config", str(archiver.config), *arguments, cwd=archiver.folder, start_new_session=True,
        env={**archiver.environment, "TERM": "xterm", "NO_COLOR": "1", "COLUMNS": str(WIDTH), "LINES": "40"},
        stdin=asyncio.subprocess.DEVNULL, stdout=theirs, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    os.close(theirs)

    def read() -> bytes:
        shown = b""
        with suppress(OSError):  # at its end
            while more := os.read(ours, 65536):
                shown += more
        return shown

    shown = await asyncio.to_thread(read)
    os.close(ours)
    assert await process.wait() in (0, 3)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode()).replace("\r\n", "\n")


def assert_readable(shown: str, *, time: re.Pattern[str] = SECONDS) -> None:
    """Its lines fit, save what may be copied as a whole; no mark of Python; its times have one form."""
    assert shown
    for line in shown.splitlines():
        copied = line.lstrip().startswith(("next: ", "sha256 ", "store key ")) or max(map(len, line.split()), default=0) > 40
        assert len(line) <= WIDTH or copied, line
        assert not REPR.search(line), line
        for found in TIME.finditer(line):
            assert time.fullmatch(found[0]), line


async def test_every_screen_fits(archiver: Program, data: dict[str, Any], simulator: Simulator, sql: Any) -> None:
    other = data["bots"][0] | {"name": "support-of-the-united-states-west-2", "bot_id": "st-other"}
    archiver.configure({**data, "bots": [*data["bots"], other]})
    simulator.script({"session_id": "archived-1", "recordings": [{"audio": {"seconds": 2}}, {"audio": {"seconds": 1}}]})
    simulator.script({"session_id": "none-1", "answers": [{"status": "media_unavailable"}]})
    simulator.script({"session_id": "failed-1", "answers": [{"status": "failed"}]})
    simulator.script({"session_id": "stalled-1", "recordings": [{"faults": [{"kind": "stall"}]}]})
    assert (await archiver("enqueue", "--bot", "bot", "archived-1", "none-1", "failed-1")).code == 0
    await sql.execute(
        """UPDATE archive_queue SET metadata = '{"team": {"name": "audit", "open": true, "of": null}, "list": [1, "x"]}'"""
    )
    assert (await archiver("worker", "--drain")).code == 3
    await archiver("pause", "--bot", other["name"])
    await archiver("enqueue", "--bot", "bot", "stalled-1")
    worker = await archiver.start("worker")
    await worker.logged("worker_started")
    await eventually(lambda: sql.fetchval("SELECT count(*) FROM archive_queue WHERE state = 'claimed'"))

    status = await screen(archiver, "status")
    assert_readable(status)
    assert "support-of-the-united-states-west-2" in status
    assert "media_unavailable" in status
    workers = await screen(archiver, "workers")
    assert_readable(workers)
    assert workers.startswith("worker ")
    assert f"pid {worker.process.pid}" in workers
    assert "stalled-1 (bot, recording) since " in workers
    for session in ("archived-1", "none-1", "failed-1"):
        shown = await screen(archiver, "show", session)
        assert_readable(shown, time=MILLISECONDS)
        assert re.search(r'metadata\.team +\{.*"open": true.*\}', shown)
    assert_readable(await screen(archiver, "verify"))
    assert_readable(await screen(archiver, "store", "adopt"))


async def test_the_account_of_a_week_fits(archiver: Program, simulator: Simulator) -> None:
    from tests.system.account.conftest import made

    simulator.set_history(made(unavailable=2, in_progress=1, failing=2, other_channels=1, voicemails=1))
    night = await screen(archiver, "nightly", "--from", "2020-01-01", "--max-wait", "0s")
    assert_readable(night)
    account = await screen(archiver, "reconcile", "--from", "2020-01-01")
    assert_readable(account)
    assert " calls = " in account


@pytest.mark.parametrize("arguments", [(), ("nightly",), ("backfill",), ("store", "adopt"), ("retry",)])
async def test_help_fits(archiver: Program, arguments: tuple[str, ...]) -> None:
    shown = await screen(archiver, *arguments, "--help")
    assert all(len(line) <= WIDTH for line in shown.splitlines())


async def test_what_doctor_finds_fits(archiver: Program) -> None:
    shown = await screen(archiver, "doctor")
    assert_readable(shown)
    assert all(len(line) <= WIDTH for line in shown.splitlines() if "/" not in line), shown
    assert "\nbudget  " in shown
