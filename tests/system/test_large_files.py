"""A large recording on its way, as operators and their monitors see it: a real worker, a slow body, a real database."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from archiver.simulator.platform import Simulator
from tests.system.conftest import Program, Running, eventually

ESCAPE = "\x1b[31m\x9b2J\u202e[bold]:bug:"
SIZE, PACE = 4_500_000, 300_000


async def on_its_way(archiver: Program, simulator: Simulator) -> Running:
    """A worker with one recording that takes fifteen seconds."""
    recording = {"file_name": "long.wav", "audio": {"bytes": SIZE}, "faults": [{"kind": "slow", "bytes_per_second": PACE}]}
    simulator.script({"session_id": "large", "recordings": [recording]})
    await archiver("enqueue", "large")
    worker = await archiver.start("worker")
    await worker.logged("worker_started")
    return worker


async def say(sql: Any, *transfers: dict[str, Any], lease: str = "1 h", **sums: Any) -> None:
    """A worker that says this of what it has on its way."""
    known: dict[str, Any] = {"bot": "bot", "session_id": "s", "file_name": "a.wav", "bytes": 1, "total": 2}
    known |= {"bytes_per_second": 1, "seconds": 1}
    each = [known | transfer for transfer in transfers]
    progress = {
        "running": len(each),
        "bytes": sum(one["bytes"] for one in each),
        "total": sum(one["total"] or 0 for one in each),
        "bytes_per_second": sum(one["bytes_per_second"] for one in each),
        "received_bytes": 0,
        "transfers": each,
    } | sums
    await sql.execute(
        "INSERT INTO archive_workers (host, pid, version, expires_at, progress, progress_at) "
        "VALUES ('h', 1, '0', now() + $1::text::interval, $2::text::jsonb, now())", lease, json.dumps(progress))  # fmt: skip


class Screen:
    """What a command draws on a terminal of its own."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.drawn = bytearray()

    async def shows(self, found: Callable[[bytes], bool]) -> bytes:
        """All that was drawn, once that is so."""

        async def look() -> bytes | None:
            with suppress(OSError):  # nothing yet
                self.drawn.extend(os.read(self._descriptor, 65536))
            whole = bytes(self.drawn).rpartition(b"\n")[0]  # a frame may come in pieces
            return whole if found(whole) else None

        drawn = await eventually(look)
        assert drawn is not None
        return drawn


@asynccontextmanager
async def watched(archiver: Program, *, lines: int = 40, columns: int = 150) -> AsyncIterator[Screen]:
    """`status --watch` on a terminal of that size."""
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *archiver.command, "--config", str(archiver.config), "status", "--watch", "--every", "100ms", cwd=archiver.folder,
        env={**archiver.environment, "TERM": "xterm", "COLUMNS": str(columns), "LINES": str(lines)}, start_new_session=True,
        stdin=asyncio.subprocess.DEVNULL, stdout=theirs, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    os.close(theirs)
    os.set_blocking(ours, False)
    try:
        yield Screen(ours)
    finally:
        process.kill()
        await process.wait()
        os.close(ours)


async def test_a_recording_on_its_way_is_in_the_status_until_it_is_stored(
    archiver: Program, simulator: Simulator, sql: Any
) -> None:
    nothing = {"running": 0, "bytes": 0, "total": 0, "bytes_per_second": 0}
    assert (await archiver("status", "--json")).document["transfers"] == nothing
    worker = await on_its_way(archiver, simulator)

    async def status(condition: str, bytes_before: int = 0) -> Any:
        """What the command shows once the worker's row says so."""
        await eventually(lambda: sql.fetchval(f"SELECT 1 FROM archive_workers WHERE {condition}", bytes_before))
        return (await archiver("status", "--json")).document

    more = "(progress ->> 'bytes')::bigint > $1"
    first = await status(more)
    later = await status(more, first["transfers"]["bytes"])

    (busy,) = later["workers"]
    (transfer,) = busy["transfers"]
    assert (transfer["bot"], transfer["session_id"], transfer["file_name"]) == ("bot", "large", "long.wav")
    assert first["transfers"]["bytes"] < transfer["bytes"] < transfer["total"] == SIZE
    assert PACE / 2 < transfer["bytes_per_second"] < PACE * 2
    assert transfer["percent"] == round(100 * transfer["bytes"] / SIZE, 1)
    assert transfer["time_left_seconds"] == round((SIZE - transfer["bytes"]) / transfer["bytes_per_second"])
    sums = {"running": 1, "bytes": transfer["bytes"], "total": SIZE, "bytes_per_second": transfer["bytes_per_second"]}
    assert later["transfers"] == sums
    assert busy["progress"].items() >= sums.items()
    assert busy["progress"]["received_bytes"] >= transfer["bytes"]
    assert busy["progress"]["at"] > busy["started_at"]
    (same,) = (await archiver("workers", "--json")).document["workers"]
    assert same["transfers"][0].items() >= {"session_id": "large", "total": SIZE}.items()
    human = (await archiver("status")).stdout
    assert "long.wav" in human
    assert "of 4.5 MB" in human

    await worker.logged("session_archived")

    document = await status("(progress ->> 'running')::integer = $1")
    assert document["transfers"] == nothing
    assert document["workers"][0]["transfers"] == []
    assert document["workers"][0]["progress"]["received_bytes"] == SIZE
    worker.send(signal.SIGTERM)
    assert (await worker.ended()).code == 143


async def test_a_watch_on_a_terminal_and_one_elsewhere_show_it(archiver: Program, simulator: Simulator) -> None:
    await on_its_way(archiver, simulator)
    line = await archiver.start("status", "--watch", "--every", "100ms")
    async with watched(archiver) as screen:
        drawn = await screen.shows(lambda drawn: b"long.wav" in drawn and b"of 4.5 MB" in drawn)
    assert b"large" in drawn
    assert b" %" in drawn
    assert b"kB" in drawn

    async def told() -> bool:
        return "; transfers 1, " in line.stdout

    await eventually(told)
    (found, *_) = [one for one in line.stdout.splitlines() if "; transfers" in one]
    assert " of 4.5 MB, " in found
    assert "kB/s" in found


@pytest.mark.parametrize("lines", [24, 40])
async def test_a_terminal_shows_as_many_as_fit_the_longest_first(archiver: Program, sql: Any, lines: int) -> None:
    await say(sql, *({"file_name": f"{number:03}.wav", "seconds": number, "total": 1000} for number in range(100)), running=140)
    async with watched(archiver, lines=lines) as screen:
        drawn = await screen.shows(lambda drawn: drawn.count(b" more; all together 100 B of 100.0 kB, 100 B/s") >= 2)
    first = drawn[: drawn.index(b" more; all together")].decode()
    shown = [number for number in range(100) if f"{number:03}.wav" in first]
    assert shown == list(range(shown[0], 100)), "those that have been on their way longest"
    assert len(shown) == lines - 13, first
    assert f"and {140 - len(shown)}" in first
    assert first.count("\n") + 2 < lines, "the worker is below them, and the cursor"


@pytest.mark.parametrize("columns", [80, 100, 200])
async def test_long_names_give_way_and_figures_do_not(archiver: Program, sql: Any, columns: int) -> None:
    long = {"bot": "b" * 64, "session_id": "s" * 200, "file_name": "寛" * 60, "bytes": 123_456_789_012, "total": 999_999_999_999}
    await say(sql, long | {"bytes_per_second": 1234, "seconds": 10**6})
    async with watched(archiver, columns=columns) as screen:
        drawn = (await screen.shows(lambda drawn: drawn.count(b"time left") >= 4)).decode()
    (line,) = {line for line in drawn.replace("\r", "").splitlines() if "sss" in line}
    assert "123.5 GB of 1000.0 GB" in line
    assert " 12 %" in line
    assert "1.2 kB" in line
    assert "8221d 8h" in line


async def test_names_from_outside_reach_no_terminal_raw(archiver: Program, sql: Any) -> None:
    await say(sql, {"bot": ESCAPE, "session_id": ESCAPE, "file_name": ESCAPE})
    result = await archiver("status")
    assert result.code == 0
    assert not set(result.stdout) & {"\x1b", "\x9b", "\u202e"}, result.stdout
    assert "[bold]:bug:" in result.stdout
    async with watched(archiver, columns=200) as screen:
        drawn = await screen.shows(lambda drawn: b":bug:" in drawn)
    assert b"\x1b[31m" not in drawn
    assert "\x9b".encode() not in drawn
    assert "\u202e".encode() not in drawn
    assert (await archiver("status", "--json")).document["workers"][0]["transfers"][0]["file_name"] == ESCAPE


async def test_what_a_dead_worker_said_is_no_longer_so(archiver: Program, sql: Any) -> None:
    await say(sql, {"file_name": "dead.wav"}, lease="-1 s")
    await say(sql, {"file_name": "alive.wav", "total": None}, total=None)
    document = (await archiver("status", "--json")).document
    dead, alive = document["workers"]
    assert (dead["alive"], dead["transfers"], dead["progress"]["running"]) == (False, [], 0)
    assert [one["file_name"] for one in alive["transfers"]] == ["alive.wav"]
    assert (alive["transfers"][0]["percent"], alive["transfers"][0]["time_left_seconds"]) == (None, None)
    assert document["transfers"] == {"running": 1, "bytes": 1, "total": None, "bytes_per_second": 1}
    human = (await archiver("status")).stdout
    assert "alive.wav" in human
    assert "dead.wav" not in human
