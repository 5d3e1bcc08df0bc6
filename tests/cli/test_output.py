"""What commands print: nothing in it acts, whatever it is opened with."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from archiver.account.closing import Closing
from archiver.account.items import Item, Items
from archiver.account.reconcile import Account
from archiver.cli.accounts import COLUMNS, show
from archiver.cli.json_stream import print_json_list
from archiver.cli.output import fitting, folded, moment, told
from archiver.observe.redact import redact_value

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


def items_of(*items: Item) -> Items:
    """Of an account."""
    made = Items()
    made.extend(items)
    return made


def closing(account: Account) -> Closing:
    """Of no bot's time."""
    return Closing(account, {}, (), {}, "reconcile", datetime.now(UTC), "me")


@pytest.mark.parametrize("text", FORMULAS)
def test_no_spreadsheet_finds_a_formula_in_the_csv(capsys: pytest.CaptureFixture[str], text: str) -> None:
    item = Item("support", "s-1", "recording", "cancelled", text, None, {"because": text, "cancelled_by": text})
    show(closing(Account(items=items_of(item))), "csv")
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
    show(closing(Account(items=items_of(Item("b", "s-1", "recording", "failed", told, None)))), "csv")
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
    show(closing(Account(counts=counts, items=items_of(*items))), "table")
    assert capsys.readouterr().out.splitlines()[-4:] == [
        "archived: b s-1 recording: shorter_than_call (call_seconds 20.0, recorded_seconds 8 and 9.5)",
        "archived: b s-2 recording: file_size (found 3, shorter_than_call: call_seconds 20.0, recorded_seconds 8 and 9.5)",
        "--format csv or json names every session that is not simply archived, and why",
        "5 calls = 2 archived, 3 unavailable (2 probably_purged); besides 1 unlisted, 2 mismatched, 1 remarked",
    ]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("2026-11-28T04:03:04.567890+02:00", "2026-11-28 02:03:04 UTC"),
        ("2026-11-28 02:03:04Z", "2026-11-28 02:03:04 UTC"),
        (datetime(2026, 11, 28, 2, 3, 4, tzinfo=UTC), "2026-11-28 02:03:04 UTC"),
        ("0001-01-01T00:00:00+14:00", "0001-01-01T00:00:00+14:00"),
        ("2026-13-28T02:03:04Z", "2026-13-28T02:03:04Z"),
        ("2026-11-28", "2026-11-28"),
        (timedelta(hours=3, minutes=5), "3h 05m"),
        (True, "true"),
        (None, "null"),
        ({"a": ["\u00e9", None]}, '{"a": ["\u00e9", null]}'),
        ("it's", "it's"),
    ],
)
def test_a_fact_is_told_in_words(value: object, shown: str) -> None:
    assert told(value) == shown


def test_a_time_has_milliseconds_where_order_matters() -> None:
    assert moment("2026-11-28T02:03:04.5+00:00", precise=True) == "2026-11-28 02:03:04.500 UTC"


def test_prose_is_folded_without_breaking_a_word_or_a_time() -> None:
    key = "bot=b/" + "x" * 90
    lines = folded(f"stored {key} at 2026-11-28 02:03:04 UTC, which is what it says", 30).splitlines()
    assert lines == ["stored", f"  {key}", "  at 2026-11-28 02:03:04 UTC,", "  which is what it says"]


def test_a_table_gives_up_what_is_empty_and_then_its_columns() -> None:
    columns, rows = ("bot", "pending", "failed", "cancelled"), [("[bold]a[/bold]", "1", "0", ""), ("b", "12", "3", "0")]

    def columns_at(width: int) -> list[str] | str:
        made = fitting(width, columns, rows)
        return made if isinstance(made, str) else [str(column.header) for column in made.columns]

    assert columns_at(31) == list(columns)
    assert columns_at(30) == ["bot", "pending", "failed"]
    assert columns_at(19) == "a\n  pending 1,\n  failed 0\nb\n  pending 12,\n  failed 3"


BEGAN = datetime(2026, 3, 1, tzinfo=UTC)

ITEMS: list[dict[str, Any]] = [
    {"session_id": "s-1", "asks": 2, "started_at": None, "because": 'a "text"\n, é'},
    {"session_id": "s-2", "mismatches": [{"mismatch": "length", "recorded_seconds": [8, 9.5], "none": [], "nothing": {}}]},
    {"session_id": "s-3", "because": f"password={'x' * 20}"},
]


@pytest.mark.parametrize("count", [0, 1, 3, 1200])
def test_a_document_whose_list_is_printed_as_it_comes_is_the_same(capsys: pytest.CaptureFixture[str], count: int) -> None:
    items = [ITEMS[number % 3] for number in range(count)]
    document = {"complete": False, "items": [], "problems": [{"items": []}]}
    print_json_list(document, "items", iter(items))
    assert capsys.readouterr().out == json.dumps(redact_value({**document, "items": items}), indent=2) + "\n"


def test_items_come_as_they_went_in_however_many_there_are() -> None:
    items = Items()
    assert (list(items), len(items)) == ([], 0)
    made = [
        Item("b", f"s-{number}", "voicemail", ("failed", "unavailable")[number % 2], "x", BEGAN, {"because": f"{number:1000}"})
        for number in range(5001)
    ]
    items.extend(made[:2500])
    assert list(items) == made[:2500]
    items.extend(made[2500:])
    assert list(items) == list(items) == made
    assert (len(items), items.open) == (5001, 2501)
    assert items.reasons == {("failed", "x"): 2501, ("unavailable", "x"): 2500}
