"""What a shell is told when somebody presses Tab. Each shell's script asks the program the same question."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click
import pytest
from click.shell_completion import BashComplete, FishComplete, ZshComplete

from archiver.cli.app import COMMANDS, cli

CONFIGURATION = '[[bots]]\nname = "support-us"\n[[bots]]\nname = "support-eu"\n[[bots]]\nname = "sales; rm -rf ~"\n'


def offered(words: Sequence[str], incomplete: str) -> list[str]:
    return [
        item.value for item in BashComplete(cli, {}, "archiver", "_ARCHIVER_COMPLETE").get_completions(list(words), incomplete)
    ]


def test_commands_and_options() -> None:
    assert offered([], "") == list(COMMANDS)
    assert offered([], "conf") == ["config"]
    assert offered(["config"], "") == ["check", "show"]
    assert offered(["--log-level"], "w") == ["warning"]
    assert {"--drain", "--processes", "--config", "--log-level", "--help"} <= set(offered(["worker"], "--"))


@pytest.mark.parametrize("before", [["--config", "FILE", "pause"], ["pause", "--config", "FILE"]])
def test_names_of_bots_as_the_named_file_has_them(before: list[str], tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text(CONFIGURATION)
    words = [str(path) if word == "FILE" else word for word in before]
    assert offered([*words, "--bot"], "") == ["support-eu", "support-us"]
    assert offered([*words, "--bot"], "support-u") == ["support-us"]


def test_no_configuration_and_a_broken_one_offer_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ARCHIVER_CONFIG", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    assert offered(["pause", "--bot"], "") == []
    os.mkfifo("archiver.toml")
    assert offered(["pause", "--bot"], "") == []
    (tmp_path / "archiver.toml").unlink()
    (tmp_path / "archiver.toml").write_text("[[bots")
    assert offered(["pause", "--bot"], "") == []
    (tmp_path / "archiver.toml").write_text(CONFIGURATION)
    assert offered(["pause", "--bot"], "support-u") == ["support-us"]


def test_every_option_that_names_a_bot_offers_them() -> None:
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        for each in command.commands.values() if isinstance(command, click.Group) else [command]:
            for param in each.params:
                assert "--bot" not in param.opts or param._custom_shell_complete is not None


@pytest.mark.parametrize("kind", [ZshComplete, FishComplete])
def test_the_scripts_of_the_other_shells_ask_the_same(kind: type[ZshComplete] | type[FishComplete]) -> None:
    source = kind(cli, {}, "archiver", "_ARCHIVER_COMPLETE").source()
    assert f"_ARCHIVER_COMPLETE={kind.name}_complete" in source


def test_bash_completes_with_the_line_that_is_documented(tmp_path: Path) -> None:
    """The documented line, in a real bash, quickly: what takes long to import is not."""
    (tmp_path / "archiver").write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -X importtime -m archiver "$@" 2>>{tmp_path}/imported\n'
    )
    (tmp_path / "archiver").chmod(0o755)
    line = next(
        line.split("`")[1]
        for line in (Path(__file__).parents[2] / "docs/operations.md").read_text().splitlines()
        if line.startswith("| bash ")
    )
    script = f"""{line}
COMP_WORDS=(archiver re) COMP_CWORD=1
$(complete -p archiver | sed 's/.*-F \\([^ ]*\\) .*/\\1/') archiver re archiver
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert done.stdout.split() == [name for name in COMMANDS if name.startswith("re")], done
    imported = (tmp_path / "imported").read_text()
    assert "click.shell_completion" in imported
    assert not [name for name in ("pydantic", "aiohttp", "asyncpg", "rich", "asyncio") if f" {name}\n" in imported]
