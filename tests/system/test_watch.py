"""`status --watch`, on a terminal, in a pipe and for programs."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

from archiver.account.status import pause_after
from tests.system.conftest import Program, Running, eventually


async def lines_of(running: Running, count: int) -> list[str]:
    """The first lines of its standard output, once there are so many."""

    async def look() -> list[str]:
        lines = running.stdout.splitlines()
        return lines if len(lines) >= count else []

    return await eventually(look)


async def test_a_watch_prints_a_line_a_look_and_ends_with_ctrl_c(archiver: Program) -> None:
    await archiver("enqueue", "a")
    watch = await archiver.start("status", "--watch", "--every", "100ms")
    assert "pending 1, claimed 0" in (await lines_of(watch, 1))[0]
    await archiver("enqueue", "b")

    async def seen() -> bool:
        return "pending 2" in watch.stdout

    await eventually(seen)
    watch.send(signal.SIGINT)
    result = await watch.ended()
    assert (result.code, result.stderr.strip()) == (130, "")
    assert all(" pending " in line and "time left unknown; workers 0" in line for line in result.stdout.splitlines())


async def test_a_watch_for_programs_prints_a_document_a_line_and_ends_with_sigterm(archiver: Program) -> None:
    watch = await archiver.start("status", "--watch", "--every", "100ms", "--json")
    lines = await lines_of(watch, 3)
    watch.send(signal.SIGTERM)
    result = await watch.ended()
    assert (result.code, result.stderr) == (143, "")
    documents = [json.loads(line) for line in lines[:3]]
    assert [document["at"] for document in documents] == sorted({document["at"] for document in documents})
    assert all(len(document["sessions"]) == 6 for document in documents)


async def test_a_watch_redraws_a_terminal(archiver: Program) -> None:
    await archiver("enqueue", "a")
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *archiver.command, "--config", str(archiver.config), "status", "--watch", "--every", "100ms", cwd=archiver.folder,
        env={**archiver.environment, "TERM": "xterm", "COLUMNS": "150", "LINES": "40"}, start_new_session=True,
        stdin=asyncio.subprocess.DEVNULL, stdout=theirs, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    os.close(theirs)
    os.set_blocking(ours, False)
    drawn = bytearray()

    async def redrawn() -> bool:
        with suppress(OSError):  # nothing yet, or nothing more
            drawn.extend(os.read(ours, 65536))
        return drawn.count(b"time left") >= 2 and drawn.count(b"\x1b[2K") > 2  # lines erased to be drawn again

    try:
        await eventually(redrawn)
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(20):
            _, stderr = await process.communicate()
        with suppress(OSError):  # nothing more
            while more := os.read(ours, 65536):
                drawn.extend(more)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        os.close(ours)
    assert (process.returncode, stderr.strip()) == (130, b"")
    assert drawn.rfind(b"\x1b[?25h") > drawn.rfind(b"\x1b[?25l"), "the cursor is shown again"


async def test_a_watch_whose_reader_goes_away_ends_without_a_word(archiver: Program) -> None:
    result = await archiver.shell("archiver status --watch --every 100ms | head -1")
    assert result.stderr == ""
    assert result.code in (0, 1)
    assert len(result.stdout.splitlines()) == 1


async def test_a_wrong_watch_is_refused(archiver: Program) -> None:
    (await archiver("status", "--every", "5s")).refused(2, "--every goes with --watch")
    (await archiver("status", "--watch", "--every", "soon")).refused(2, "--every", '"soon" must be a number and a unit of time')
    (await archiver("status", "--watch", "--every", "0")).refused(2, "--every", "must be at least 100ms")


async def test_a_watch_ends_when_its_database_is_gone(archiver: Program, sql: Any) -> None:
    watch = await archiver.start("status", "--watch", "--every", "100ms")
    await lines_of(watch, 1)
    await sql.execute("DROP VIEW archive_sessions; DROP TABLE archive_queue CASCADE")
    result = await watch.ended()
    assert result.code == 1
    assert "archiver migrate" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(("took", "every", "pause"), [(0.01, 2, 2), (3, 2, 30), (0.2, 2, 2), (0.3, 2, 3)])
def test_the_pause_of_a_watch_is_ten_times_what_a_look_took(took: float, every: float, pause: float) -> None:
    assert pause_after(took, timedelta(seconds=every)) == pytest.approx(pause)
