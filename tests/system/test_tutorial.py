"""docs/tutorial.md, run as a reader would run it: each command a process, and what it prints held against the page."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from archiver.postgres.embedded.server import embedded_postgres
from tests.programs import installed
from tests.s3_servers import ACCESS_KEY, BUCKET, SECRET_KEY, S3Server
from tests.system.conftest import ROOT, Program
from tests.system.tutorial_page import Reading, steps_of

PAGE = ROOT / "docs/tutorial.md"

MIDNIGHT_NEAR = timedelta(minutes=3)

_JOBS = re.compile(r"bash: line \d+: +\d+ Killed .*")
"""What a shell without a terminal says of a job that was killed; one with a terminal says it otherwise."""

_END = "\x1e"


class Terminal:
    """A shell in which `archiver` and `aws` are commands, and commands see what those before them left."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def open(cls, program: Program) -> Terminal:
        process = await asyncio.create_subprocess_exec(
            "bash", "--norc", cwd=program.folder, env=program.environment, start_new_session=True, limit=1 << 22,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        return cls(process)

    async def run(self, command: str, *, timeout: float = 60) -> tuple[str, ...]:
        """What it prints."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{command}\n{{ __code=$?; printf '{_END}'; (exit $__code); }}\n".encode())
        async with asyncio.timeout(timeout):
            printed = (await self._process.stdout.readuntil(_END.encode())).decode().removesuffix(_END)
        return tuple(line for line in printed.splitlines() if not _JOBS.fullmatch(line))

    async def close(self) -> None:
        """End it, and what it left running."""
        os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()


@pytest.fixture
def program(blank: Program) -> Program:
    """Where `archiver` and `aws` are on the PATH."""
    installed("curl", "curl")
    commands = blank.folder / "bin"
    commands.mkdir()
    for name, command in (("archiver", blank.command), ("aws", (sys.executable, str(Path(__file__).with_name("s3_client.py"))))):
        (commands / name).write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
        (commands / name).chmod(0o755)
    blank.environment["PATH"] = f"{commands}:{blank.environment['PATH']}"
    return blank


@pytest.fixture
async def terminal(program: Program) -> AsyncIterator[Terminal]:
    opened = await Terminal.open(program)
    yield opened
    await opened.close()


async def simulate(program: Program, command: str) -> tuple[str, ...]:
    """Start the simulator, at ports that are free here. What it printed."""
    running = await program.start(*shlex.split(command)[1:], "--port", "0")
    await running.printed("ready")
    return tuple(running.log)


@pytest.mark.timeout(400)
async def test_the_tutorial_prints_what_it_says(program: Program, terminal: Terminal, seaweedfs: S3Server) -> None:
    midnight = datetime.combine(datetime.now(UTC).date() + timedelta(days=1), datetime.min.time(), UTC)
    if (left := midnight - datetime.now(UTC)) < MIDNIGHT_NEAR:
        await asyncio.sleep(left.total_seconds() + 0.1)  # else yesterday would be another day before the page is through
    now = datetime.now(UTC)
    places = {
        "/srv/archive": str(program.folder / "archive"),
        "https://s3.example": seaweedfs.url,
        "s3://calls/audit": f"s3://{BUCKET}/tutorial-{os.getpid()}-{now:%H%M%S%f}",
        "key-of-the-bucket": ACCESS_KEY,
        "secret-of-the-bucket": SECRET_KEY,
    }
    reading = Reading()
    wrong: list[str] = []
    async with AsyncExitStack() as server:
        for step in steps_of(PAGE):
            if step.command is None:
                (program.folder / "archive/archiver.toml").write_text(placed("\n".join(step.text), places) + "\n")
                continue
            if step.command.startswith("archiver simulate"):
                printed = await simulate(program, step.command)
                ports = re.findall(r"http://127.0.0.1:(\d+)", "\n".join(printed))
                places |= {
                    f"127.0.0.1:{theirs}": f"127.0.0.1:{ours}" for theirs, ours in zip(("8770", "8771"), ports[:2], strict=True)
                }
            else:
                printed = await terminal.run(reading.here(placed(step.command, places)))
            after = reading.read(tuple(placed(line, places) for line in step.text), printed)
            if after is None:
                wrong.append(
                    "\n".join([f"line {step.line}: $ {step.command}", "the page says:", *step.text, "it prints:", *printed])
                )
            reading = after or reading
            if "archiver migrate" in step.command:
                # Kept running, as a worker would keep it, so that not every command has to start it.
                await server.enter_async_context(embedded_postgres(program.folder / "archive/postgres"))
    assert not wrong, "\n\n".join(wrong)


def placed(text: str, places: dict[str, str]) -> str:
    """With what the page calls otherwise than it is called here."""
    for theirs, ours in places.items():
        text = text.replace(theirs, ours)
    return text


ID, OTHER = "6b09db64e968699af100008b", "6b09cc3211635f61cb00008a"

SAID = f"2026-04-02  {ID}  15 files\n...\n{ID} since 2026-04-03 03:30"


@pytest.mark.parametrize(
    ("printed", "fits"),
    [
        (f"2026-11-27  {OTHER}  15  files\n{OTHER} since 2026-11-28 17:59", True),
        (f"2026-11-27 {OTHER} 15 files  \nmore\n\n{OTHER} since 2026-11-28 17:59", True),
        (f"2026-11-27 {OTHER} 16 files\n{OTHER} since 2026-11-28 17:59", False),
        (f"2026-11-27 {OTHER} 15 files\n{ID} since 2026-11-28 17:59", False),
        (f"2026-11-27 {OTHER} 15 files\n{OTHER} since 2026-11-29 17:59", False),
        (f"2026-11-27 {OTHER} 15 files\n{OTHER} since 2026-11-28 noon", False),
        (f"2026-11-27 {OTHER} 15 files\n{OTHER} since 2026-11-28 17:59\nmore", False),
        (f"2026-11-27 {OTHER} 15 files", False),
    ],
)
def test_what_a_page_may_leave_open(printed: str, fits: bool) -> None:
    after = Reading().read(tuple(SAID.splitlines()), tuple(printed.splitlines()))
    assert (after is not None) is fits
    if after is not None:
        assert after.here(f"archiver show {ID} --from 2026-04-01") == f"archiver show {OTHER} --from 2026-11-26"


def test_two_sessions_of_a_page_are_not_one_here() -> None:
    assert Reading().read((f"{ID} {OTHER}",), (f"{ID} {ID}",)) is None
