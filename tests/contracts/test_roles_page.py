"""docs/roles.md shows the list of privileges that is in the code: all of it, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from archiver.cli.app import COMMANDS as EVERY_COMMAND
from archiver.postgres.roles import COMMANDS, PRUNING, ROLES, Grant

PAGE = (Path(__file__).parents[2] / "docs" / "roles.md").read_text()
OUTSIDE = {"config", "demo", "init", "roles", "simulate"}


def commands() -> Iterator[str]:
    """A row a command: what works under which role."""
    for command in EVERY_COMMAND:
        if command not in OUTSIDE:
            yield f"| `{command}` | {' | '.join('yes' if role in COMMANDS[command] else '' for role in ROLES)} |"


def privileges(grants: Sequence[Grant]) -> Iterator[str]:
    """A row a table, view or function."""
    for name in dict.fromkeys(each.on for each in grants):
        told = [
            f"`{each.privilege}`" + (f" of {', '.join(f'`{column}`' for column in each.columns)}" if each.columns else "")
            for each in grants
            if each.on == name
        ]
        yield f"| `{name}` | {'; '.join(told)} |"


def table(heading: str) -> list[str]:
    """The rows of the table below a heading."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return [re.sub(r" +", " ", line).replace("| |", "|  |") for line in section.splitlines() if line.startswith("| `")]


def rows(lines: Iterator[str]) -> list[str]:
    return [re.sub(r" +", " ", line).replace("| |", "|  |") for line in lines]


def test_the_page_says_which_command_works_under_which_role() -> None:
    assert table("Which command works under which role") == rows(commands())


def test_the_page_shows_every_privilege_of_every_role() -> None:
    for role in ROLES:
        assert table(f"`archiver_{role.kind}`") == rows(privileges(role.grants)), role.kind
    assert table("Old history") == rows(privileges(PRUNING))
