"""One place chooses the event loop of every command."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import uvloop

from archiver.cli.compose import run_async
from archiver.runtime.event_loop import VARIABLE, loop_factory, loop_name

PACKAGE = Path(__file__).parents[2] / "archiver"


async def _name() -> str:
    return loop_name()


def test_commands_run_on_uvloop_where_it_is_installed() -> None:
    assert run_async(_name()) == "uvloop"
    assert loop_factory({VARIABLE: "another"}) is uvloop.new_event_loop


def test_tests_can_keep_them_off_it() -> None:
    assert loop_factory({VARIABLE: "asyncio"}) is None
    with asyncio.Runner(loop_factory=None) as runner:
        assert runner.run(_name()) == "asyncio"


def test_without_it_they_run_on_asyncio() -> None:
    program = """
import sys
sys.modules["uvloop"] = None
from archiver.runtime.event_loop import loop_factory
assert loop_factory() is None
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_nothing_else_makes_a_loop() -> None:
    makes = ("asyncio.Runner(", "asyncio.run(", "new_event_loop", "uvloop.")
    found = {str(file.relative_to(PACKAGE)) for file in PACKAGE.rglob("*.py") if any(word in file.read_text() for word in makes)}
    assert found == {"cli/compose.py", "runtime/event_loop.py"}
