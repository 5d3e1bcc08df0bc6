"""Where code and its tests lie. Who may import whom is in pyproject.toml, for the import linter."""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "archiver"
TESTS = ROOT / "tests"

FILES = {"__init__", "__main__", "errors", "outcome", "session"}
"""Modules that stand beside the rooms: the nouns that every room uses, and the entry point."""

BESIDE_ROOMS = {"contracts", "system"}
"""Folders of tests that belong to no single room."""

MAX_LINES = 400


def _folders(parent: Path, pattern: str) -> set[str]:
    """Folders of `parent` that have a file like `pattern` somewhere in them."""
    return {folder.name for folder in parent.iterdir() if folder.is_dir() and any(folder.rglob(pattern))}


def test_no_room_is_a_single_file() -> None:
    assert {file.stem for file in PACKAGE.glob("*.py")} == FILES


def test_every_room_has_a_folder_of_tests_and_no_other_folder_has_tests() -> None:
    assert _folders(TESTS, "test_*.py") == _folders(PACKAGE, "*.py") | BESIDE_ROOMS


def test_no_module_is_longer_than_a_person_reads_at_once() -> None:
    lines = {str(file.relative_to(ROOT)): len(file.read_text(encoding="utf-8").splitlines()) for file in PACKAGE.rglob("*.py")}
    assert {file: count for file, count in lines.items() if count > MAX_LINES} == {}
