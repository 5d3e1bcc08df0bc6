"""Which sessions the options of `export` and `sums` choose, and lines that `sha256sum` takes."""

from __future__ import annotations

import hashlib
import os
import subprocess
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from archiver.cli.exporting import NAMES, choice_of
from archiver.cli.sums import lines_to, sum_line
from archiver.config import Settings
from archiver.errors import DatabaseError, UsageError

SETTINGS = Settings.model_validate({"database": {"url": "postgresql://nobody@nowhere/x"}, "storage": {"url": "file:///nowhere"}})
NOTHING: dict[str, Any] = {
    **dict.fromkeys(NAMES), "bots": (), "kinds": (), "states": (), "reasons": (),
}  # fmt: skip


def test_a_choice_is_told_from_every_other(tmp_path: Path) -> None:
    (tmp_path / "ids").write_text("s-1\n# s-3\ns-2\n")
    (tmp_path / "other").write_text("s-1\ns-3\n")
    choices = [
        choice_of(SETTINGS, NOTHING),
        choice_of(SETTINGS, NOTHING | {"bots": ("one",)}),
        choice_of(SETTINGS, NOTHING | {"start": date(2026, 3, 1)}),
        choice_of(SETTINGS, NOTHING | {"end": date(2026, 3, 1)}),
        choice_of(SETTINGS, NOTHING | {"agent": "ana"}),
        choice_of(SETTINGS, NOTHING, ("s-1",)),
        choice_of(SETTINGS, NOTHING | {"bots": ("one",)}, ("s-1",)),
        choice_of(SETTINGS, NOTHING, (), tmp_path / "ids"),
        choice_of(SETTINGS, NOTHING, (), tmp_path / "other"),
    ]
    prints = [choice.fingerprint() for choice in choices]
    assert len(set(prints)) == len(prints)
    assert [choice.fingerprint() for choice in choices] == prints
    named = choice_of(SETTINGS, NOTHING, ("s-1", "s-2"))
    assert named.fingerprint() == choices[-2].fingerprint()
    assert choices[-2].ids is not None
    assert list(choices[-2].ids()) == ["s-1", "s-2"]


@pytest.mark.parametrize("option", [{"states": ("failed",)}, {"caller": "1234567"}, {"start": date(2026, 3, 1)}])
def test_sessions_that_are_named_are_not_chosen_otherwise(option: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="not chosen otherwise"):
        choice_of(SETTINGS, NOTHING | option, ("s-1",))


def test_a_list_that_cannot_be_read_leaves_nobody_out(tmp_path: Path) -> None:
    (tmp_path / "ids").write_bytes(b"session_id,note\ns-1,x\ns-2\n")
    choice = choice_of(SETTINGS, NOTHING, (), tmp_path / "ids")
    with pytest.raises(UsageError, match="line 3"):
        choice.fingerprint()
    (tmp_path / "nul").write_bytes(b"s-1\ns\0-2\n")
    with pytest.raises(UsageError, match="line 2"):
        choice_of(SETTINGS, NOTHING, (), tmp_path / "nul").fingerprint()
    with pytest.raises(UsageError, match="--sessions"):
        choice_of(SETTINGS, NOTHING, (), tmp_path / "nowhere").fingerprint()


def test_a_list_that_comes_through_a_pipe_is_read_once(tmp_path: Path) -> None:
    """As `--sessions <(psql ...)` gives one."""
    reading, writing = os.pipe()
    try:
        os.write(writing, b"s-1\ns-2\n")
        os.close(writing)
        choice = choice_of(SETTINGS, NOTHING, (), Path(f"/dev/fd/{reading}"))
        assert choice.fingerprint() == choice_of(SETTINGS, NOTHING, ("s-1", "s-2")).fingerprint()
        assert choice.ids is not None
        assert list(choice.ids()) == ["s-1", "s-2"]
    finally:
        os.close(reading)


def test_sums_that_were_not_ended_are_not_left(tmp_path: Path) -> None:
    def goes_away() -> None:
        with lines_to(tmp_path / "sums") as write:
            write(b"x\n")
            raise DatabaseError("it went away")

    with pytest.raises(DatabaseError):
        goes_away()
    assert not (tmp_path / "sums").exists()


@pytest.mark.parametrize("name", ["a.wav", " a b ", "a\nb", "a\\b", "\\", "a\\nb", "*a", "a\rb", "a\r", "ö\u202e", "\\\n\\\\n"])
def test_sha256sum_takes_the_line_of_any_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    line = sum_line(hashlib.sha256(b"x").hexdigest(), name)
    checked = subprocess.run(
        ["sha256sum", "--check", "--strict"], cwd=tmp_path, input=line, capture_output=True, check=False, timeout=20
    )
    assert checked.returncode == 0, checked
