"""What commands print: nothing in it acts, whatever it is opened with."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest

from archiver.account.closing import Closing
from archiver.account.reconcile import Account, Item
from archiver.cli.accounts import COLUMNS, show

BEFORE = [
    "",
    " ",
    "\t",
    "\r",
    "\n",
    "\u00a0",
    "\u3000",
    "\ufeff",
    "\u200b",
    "\0",
    '"',
    '""',
    "'",
    "a;",
    "a; ",
    'a;"',
    'a;""',
    "a;;",
]
FORMULAS = [f"{before}{sign}HYPERLINK(1)" for sign in "=+-@＝＋－＠" for before in BEFORE]


def closing(account: Account) -> Closing:
    """Of no bot's time."""
    return Closing(account, {}, (), {}, "reconcile", datetime.now(UTC), "me")


@pytest.mark.parametrize("text", FORMULAS)
def test_no_spreadsheet_finds_a_formula_in_the_csv(capsys: pytest.CaptureFixture[str], text: str) -> None:
    item = Item("support", "s-1", "recording", "cancelled", text, None, {"because": text, "cancelled_by": text})
    show(closing(Account(items=[item])), "csv")
    output = capsys.readouterr().out
    for line in output.splitlines():
        assert re.fullmatch(r'"(?:[^"]|"")*"(?:,"(?:[^"]|"")*")*', line), "every field is quoted"
    for separator in ",;\t":
        # As a program reads it that believes in another separator: quotes count at the beginning of a field only.
        for row in csv.reader(io.StringIO(output), delimiter=separator):
            for field in row:
                assert not re.match(r"""[\s"']*[=+\-@＝＋－＠]""", field) or field.lstrip()[:1] == "'", (separator, field)
    [header, row] = csv.reader(io.StringIO(output))
    assert tuple(header) == COLUMNS
    assert "HYPERLINK(1)" in row[COLUMNS.index("because")]


def test_other_text_stays_as_it_is_in_the_csv(capsys: pytest.CaptureFixture[str]) -> None:
    told = 'passed on; "held" - 2 = 1, a@b'
    show(closing(Account(items=[Item("b", "s-1", "recording", "failed", told, None)])), "csv")
    assert next(csv.DictReader(io.StringIO(capsys.readouterr().out)))["reason"] == told


def test_the_account_for_people_says_what_differs_and_what_is_gone(capsys: pytest.CaptureFixture[str]) -> None:
    def item(session: str, state: str, reason: str, **facts: Any) -> Item:
        return Item("b", session, "recording", state, reason, None, facts)

    length = {"call_seconds": 20.0, "recorded_seconds": [8, 9.5]}
    size = {"mismatch": "file_size", "found": 3}
    items = [
        item("s-1", "archived", "shorter_than_call", mismatches=[{"mismatch": "shorter_than_call", **length}]),
        item("s-2", "archived", "file_size", mismatches=[size], remarks=[{"remark": "shorter_than_call", **length}]),
        *(item(f"gone-{n}", "unavailable", "probably_purged") for n in range(2)),
        item("never", "unavailable", "media_unavailable"),
        item("old", "archived", "unlisted"),
    ]
    counts = Counter(calls=5, archived=2, unavailable=3, unlisted=1, mismatched=2, remarked=1)
    show(closing(Account(counts=counts, items=items)), "table")
    assert capsys.readouterr().out.splitlines()[-4:] == [
        "archived: b s-1 recording: shorter_than_call (call_seconds 20.0, recorded_seconds 8 and 9.5)",
        "archived: b s-2 recording: file_size (found 3, shorter_than_call: call_seconds 20.0, recorded_seconds 8 and 9.5)",
        "--format csv or json names every session that is not simply archived, and why",
        "5 calls = 2 archived, 3 unavailable (2 probably_purged); besides 1 unlisted, 2 mismatched, 1 remarked",
    ]
