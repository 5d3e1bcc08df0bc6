from __future__ import annotations

import re
import sys

import click
import pytest

from archiver import __version__
from archiver.cli.app import COMMANDS, cli
from archiver.cli.usage import told
from archiver.errors import ConfigError
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


@pytest.mark.parametrize(
    "line",
    [
        "--config none.toml COMMAND",
        "COMMAND --config none.toml",
        "--config other.toml COMMAND --config none.toml",
        "COMMAND --config other.toml --config none.toml",
    ],
)
@pytest.mark.parametrize("command", ["status", "store adopt", "worker --drain"])
def test_the_configuration_is_named_before_the_command_or_after_it(line: str, command: str) -> None:
    """Of two the later one counts, which is the one that somebody added to a line that was there."""
    with pytest.raises(ConfigError, match=r"^none\.toml: No such file"):
        cli.main(line.replace("COMMAND", command).split(), prog_name="archiver", standalone_mode=False)


def test_a_group_names_the_configuration_for_what_is_below_it() -> None:
    with pytest.raises(ConfigError, match=r"^none\.toml: No such file"):
        cli.main(["store", "--config", "none.toml", "adopt"], prog_name="archiver", standalone_mode=False)


async def test_the_log_level_may_follow_the_command(archiver: Program) -> None:
    loud = await archiver("worker", "--drain")
    assert '"worker_started"' in loud.stderr
    quiet = await archiver("--log-level", "debug", "worker", "--drain", "--log-level", "error")
    assert (quiet.code, quiet.stderr) == (0, "")


@pytest.mark.parametrize("name", ["status", "store", "init"])
def test_the_help_of_a_command_has_the_common_options_once(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        cli.main([name, "--help"], prog_name="archiver", standalone_mode=False)
    told = capsys.readouterr().out.partition("Usage:")[2].rpartition("Usage:")[2]
    for option in ("--config FILE ", "--log-level LEVEL "):
        assert told.count(option) == 1


async def test_the_version_is_told(blank: Program) -> None:
    result = await blank("--version")
    assert (result.code, result.stdout, result.stderr) == (0, f"archiver {__version__}\n", "")


async def test_an_unknown_command_suggests_the_one_that_was_meant(blank: Program) -> None:
    (await blank("statsu")).refused(2, 'no such command "statsu"; did you mean status?')
    (await blank("xyzzy")).refused(2, 'no such command "xyzzy"')


MISTAKES = {
    "worker --drian": "no such option --drian; did you mean --drain?",
    "worker --max-wait 5m": "--max-wait goes with --drain",
    "worker --drain --max-wait": "--max-wait must have a value",
    "worker --drain=1": "--drain must have no value",
    "config": "a command must follow: check or show",
    "worker now": "there must be no further argument: now",
    "worker --drain --max-wait soon": '--max-wait "soon" must be a number and a unit of time, such as 500ms',
    "--log-level loud status": '--log-level "loud" must be debug, info, warning or error',
    "demo --sessions 3": '--sessions "3" must be a whole number from 100 to 100000',
    "demo --sessions many": '--sessions "many" must be a whole number from 100 to 100000',
    "demo --seed x": '--seed "x" must be a whole number',
    "demo --audio nowhere": '--audio "nowhere" must be a folder that exists',
    "simulate --history .": '--history "." must be a file that exists',
    "nightly --from yesterday": '--from "yesterday" must be an ISO 8601 date or date-time, such as 2026-03-31',
    "nightly --format pdf": '--format "pdf" must be table, csv or json',
    "discover": "--from is missing: must be TIME (Only calls that began at this moment or later",
    "show": "SESSION_ID is missing: must be ",
    "cancel --since lately": '--since "lately" must be an ISO 8601 date or date-time',
}


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_of_the_command_line_is_told_as_any_other(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One line that says what must be, one that says how to go on; no quotes of Python, no "invalid value"."""
    with pytest.raises(click.ClickException) as caught:
        cli.main(line.split(), prog_name="archiver", standalone_mode=False)
    assert caught.value.exit_code == 2
    message, hint = told(caught.value)
    assert MISTAKES[line] in message
    assert re.fullmatch(r"`archiver( \w+)? --help` shows what it takes", hint)


async def test_a_misspelt_option_is_a_usage_error(blank: Program) -> None:
    result = await blank("worker", "--drian")
    result.refused(2, "error: no such option --drian; did you mean --drain?")
    assert result.stderr.splitlines()[1:] == ["  next: `archiver worker --help` shows what it takes"]
    (await blank("simulate", "--rate-limit", "fast", "--port", "0")).refused(2, "rate_limits", "'fast'")
