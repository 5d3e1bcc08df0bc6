"""What commands print: nothing in it acts, whatever it is opened with."""

from __future__ import annotations

import csv
import io
import re

import pytest

from archiver.cli.accounts import COLUMNS, Closing, show
from archiver.evidence.reconcile import Account, Item

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


@pytest.mark.parametrize("text", FORMULAS)
def test_no_spreadsheet_finds_a_formula_in_the_csv(capsys: pytest.CaptureFixture[str], text: str) -> None:
    item = Item("support", "s-1", "recording", "cancelled", text, None, {"because": text, "cancelled_by": text})
    show(Closing(Account(items=[item]), {}, {}, {}), "csv")
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
    show(Closing(Account(items=[Item("b", "s-1", "recording", "failed", told, None)]), {}, {}, {}), "csv")
    assert next(csv.DictReader(io.StringIO(capsys.readouterr().out)))["reason"] == told
