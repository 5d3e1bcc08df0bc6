"""What a migration may ask of programs: that of the release before works with it, as two of them run side by side for a while."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from archiver.postgres.migrations import PROGRAM, Header, Release, migrations

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[2]

RELEASED = {Release(0, 1): 6}
"""The last migration of each release that is out. What comes after belongs to the one under development."""

FIRST_TO_ROLL, FROM = Release(0, 2), 17
"""The first release that works beside the next, and the first migration that is written for that. 0.1 is not upgraded so."""

TAKES_AWAY = re.compile(
    r"\bDROP\s+(TABLE|COLUMN|VIEW|FUNCTION|TYPE)\b|\bRENAME\b|\bSET\s+NOT\s+NULL\b|\bALTER\s+COLUMN\s+\w+\s+(SET\s+DATA\s+)?TYPE\b",
    re.IGNORECASE,
)
"""What a program of before may need. Indexes, triggers and constraints may go: no statement names them."""


def _mistakes(header: Header, sql: str, came_with: Release) -> list[str]:
    """What is wrong with a migration that a release brings, as its author should read it."""
    before = max(came_with.minor - 1, 0)
    permitted = max(Release(came_with.major, before) if came_with.minor else came_with, FIRST_TO_ROLL)
    found = []
    if header.min_program > permitted:
        found.append(f"min_program {header.min_program}: {permitted}, which runs beside {came_with}, has to work with it")
    if header.phase == "contract" and came_with <= FIRST_TO_ROLL:
        found.append(f"contract: no release is between {came_with} and those that need what it takes away")
    if header.phase == "expand" and (match := TAKES_AWAY.search(re.sub(r"--.*", "", sql))):
        found.append(f"expand, and yet {match[0]}: first a release that does without, then a migration of the phase contract")
    if header.required_by is not None and header.required_by <= came_with:
        found.append(f"required_by {header.required_by}: {came_with} brings it, so leave the line out or name a later release")
    return found


def test_the_release_before_works_with_every_migration() -> None:
    assert max(RELEASED) < PROGRAM
    for migration in migrations()[FROM - 1 :]:
        came_with = next((release for release, last in sorted(RELEASED.items()) if migration.version <= last), PROGRAM)
        assert migration.header is not None
        assert (migration.file_name, _mistakes(migration.header, migration.sql, came_with)) == (migration.file_name, [])


def test_every_release_that_is_out_says_which_migration_is_its_last() -> None:
    dated = re.findall(r"^## \[(\d+\.\d+)\.\d+\] - \d{4}-", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert {str(release) for release in RELEASED} == {"0.1", *dated}  # the changelog begins after 0.1


@pytest.mark.parametrize(
    ("header", "sql", "came_with", "mistake"),
    [
        (Header("expand", True, Release(0, 2)), "ALTER TABLE t ADD COLUMN c text;", Release(0, 2), ""),
        (Header("expand", True, Release(0, 2), Release(0, 3)), "CREATE TABLE t ();", Release(0, 2), ""),
        (Header("expand", True, Release(0, 2), Release(0, 2)), "CREATE TABLE t ();", Release(0, 2), "leave the line out"),
        (Header("expand", True, Release(0, 3)), "SELECT 1;", Release(0, 2), "0.2, which runs beside 0.2"),
        (Header("expand", True, Release(0, 3)), "SELECT 1;", Release(0, 3), "0.2, which runs beside 0.3"),
        (Header("expand", True, Release(0, 9)), "SELECT 1;", Release(0, 10), ""),
        (Header("expand", True, Release(0, 2)), "ALTER TABLE t DROP COLUMN c;", Release(0, 3), "DROP COLUMN: first a release"),
        (Header("expand", True, Release(0, 2)), "ALTER TABLE t\n  alter column c type bigint;", Release(0, 3), "first a release"),
        (Header("expand", True, Release(0, 2)), "DROP INDEX i; -- DROP TABLE would not do", Release(0, 3), ""),
        (Header("contract", True, Release(0, 2)), "DROP TABLE t;", Release(0, 2), "no release is between"),
        (Header("contract", True, Release(0, 2)), "DROP TABLE t;", Release(0, 3), ""),
        (Header("contract", True, Release(0, 3)), "DROP TABLE t;", Release(0, 3), "0.2, which runs beside 0.3"),
    ],
)
def test_what_would_break_the_release_before_is_refused(header: Header, sql: str, came_with: Release, mistake: str) -> None:
    found = _mistakes(header, sql, came_with)
    assert (mistake in found[0] and len(found) == 1) if mistake else found == []
