from __future__ import annotations

import re
import sys

import pytest

from archiver import __version__
from archiver.cli.app import COMMANDS
from tests.system.conftest import Program


async def test_the_listing_names_every_command_with_its_short_help(blank: Program) -> None:
    result = await blank("--help")

    assert (result.code, result.stderr) == (0, "")
    listing = " ".join(result.stdout.partition("Commands:")[2].split())
    assert listing == " ".join(f"{name} {text}" for name, text in COMMANDS.items())


@pytest.mark.parametrize("name", COMMANDS)
async def test_every_command_explains_itself_and_its_exit_codes(blank: Program, name: str) -> None:
    result = await blank(name, "--help")

    assert (result.code, result.stderr) == (0, "")
    assert result.stdout.startswith(f"Usage: archiver {name} ")
    assert re.search(r"Exit codes: \d", " ".join(result.stdout.split()))


@pytest.mark.parametrize("name", COMMANDS)
def test_the_listing_says_what_the_command_says(name: str) -> None:
    import importlib

    assert importlib.import_module(f"archiver.cli.{name}").command.get_short_help_str(200) == COMMANDS[name]


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["statsu"]])
async def test_the_listing_answers_without_the_heavy_libraries(blank: Program, arguments: list[str]) -> None:
    blank.command = (sys.executable, "-X", "importtime", "-m", "archiver")

    result = await blank(*arguments)

    imported = set(re.findall(r"^import time:.*\| +(\w+)", result.stderr, re.MULTILINE))
    assert "click" in imported
    assert not imported & {"pydantic", "aiohttp", "asyncpg", "rich", "structlog", "asyncio", "jwt"}


async def test_the_version_is_told(blank: Program) -> None:
    result = await blank("--version")
    assert (result.code, result.stdout, result.stderr) == (0, f"archiver {__version__}\n", "")


async def test_an_unknown_command_suggests_the_one_that_was_meant(blank: Program) -> None:
    (await blank("statsu")).refused(2, "no such command 'statsu'; did you mean status?")
    (await blank("xyzzy")).refused(2, "no such command 'xyzzy'")


async def test_a_misspelt_option_is_a_usage_error(blank: Program) -> None:
    (await blank("worker", "--drian")).refused(2, "--drian", "--drain")
    (await blank("worker", "--max-wait", "5m")).refused(2, "--max-wait goes with --drain")
    (await blank("worker", "--drain", "--max-wait", "soon")).refused(2, "'soon'", "a duration is a number and a unit")
    (await blank("simulate", "--rate-limit", "fast", "--port", "0")).refused(2, "rate_limits", "'fast'")
    (await blank("demo", "--sessions", "3")).refused(2, "--sessions")
