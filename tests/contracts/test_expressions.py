"""No regular expression of the program takes longer than in proportion to what it is given, whoever gave it."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

import archiver
from tests.contracts.expressions import Expression, expressions, slow

pytestmark = pytest.mark.once  # it is the patterns that are slow, under every Python

PLANTED = r"""
import re
import re as regular
from re import compile as made, search

_PART = r"[a-z]+"
CONSTANT = re.compile(rf"{_PART}[a-z.]+!")
HELD = {"by": [("a table", made(r"\s+held"))]}

class Holder:
    pattern = made(r"\s+class")

def used(text: str) -> None:
    re.sub(r"\s+literal", "", text)
    regular.split(r"\s+literal" " joined", text)
    search(pattern=rf"\s+keyword{_PART}", string=text, flags=re.IGNORECASE)
    CONSTANT.match(text)
"""


def test_every_expression_of_the_program_is_linear() -> None:
    found = expressions(archiver)
    assert len(found) > 40
    assert {each.where: text for each in found if (text := slow(each))} == {}


@pytest.mark.parametrize(
    "pattern",
    [
        r"\s+$",
        r"[\s.]+\Z",
        r"a+b",
        r"(?:a+)+b",
        r"(?:a|a)*b",
        r"(?:\w+\s?)*!",
        r"<.*>.*</",
        r"[^?]*\?x",
        r"(?:a.*){3}b",
        r"(?<![a-z0-9+.-])[a-z][a-z0-9+.-]*://[^\s?#]*\?[^\s]+",
        r"postgres://[^\s:@/]*:\S*@",
        r"(?<![A-Za-z0-9])eyJ[A-Za-z0-9_-]{4,}\.",
        rb'"key"[^"]*[^}]*\}',
    ],
)
def test_one_that_tries_again_from_each_character_is_found(pattern: str | bytes) -> None:
    assert slow(Expression("planted", re.compile(pattern), frozenset({"search"})))


@pytest.mark.parametrize(
    "pattern",
    [
        r"\s*(\d+)?\s*(ms|s)?\s*",
        r"https?://(?P<host>[a-z0-9._-]*[a-z0-9][a-z0-9._-]*)(?::[0-9]+)?",
        r"([a-z]+)+",
        r"(?:[a-z0-9]+[._-]?)+@",
        r"\d+(?:,?\d+)*",
    ],
)
def test_one_that_can_be_matched_in_many_ways_is_found(pattern: str) -> None:
    assert slow(Expression("planted", re.compile(pattern, re.IGNORECASE), frozenset({"fullmatch"})))


def _package(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> list[Expression]:
    package = folder / name
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "module.py").write_text(text)
    monkeypatch.syspath_prepend(folder)
    return expressions(importlib.import_module(name))


def test_one_planted_anywhere_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = _package(tmp_path, monkeypatch, "planted_expressions", PLANTED)
    assert {each.pattern.pattern: sorted(each.methods) for each in found} == {
        "[a-z]+[a-z.]+!": ["match"],
        r"\s+held": ["fullmatch", "search"],
        r"\s+class": ["fullmatch", "search"],
        r"\s+literal": ["sub"],
        r"\s+literal joined": ["split"],
        r"\s+keyword[a-z]+": ["search"],
    }
    assert all(slow(each) for each in found)


def test_one_that_nobody_can_judge_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "import re\n\ndef used(text: str, word: str) -> None:\n    re.search(rf'{word}+x', text)\n"
    with pytest.raises(AssertionError, match=r"module:4: .*word.*make it a constant"):
        _package(tmp_path, monkeypatch, "planted_unknown", text)
