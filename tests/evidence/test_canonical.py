"""One form of JSON and of times."""

from __future__ import annotations

import json
import math
import sys
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archiver.evidence.canonical import MAX_DEPTH, canonical, moment_of, utc, utc_text
from archiver.observe.redact import TOO_DEEP
from archiver.postgres.database import Database
from archiver.postgres.json_codec import from_json

ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=12)
SCALARS = (
    st.none()
    | st.booleans()
    | ANY_TEXT
    | st.integers()
    | st.floats()
    | st.sampled_from([10**4299, -(2**64), 5e-324, 1.7e308, -0.0])
)
ANY_JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4), max_leaves=12
)


@given(ANY_JSON)
@settings(max_examples=60, deadline=None)
def test_the_same_content_has_the_same_bytes_and_is_read_as_it_was(value: Any) -> None:
    for ascii_only in (False, True):
        made = canonical(value, ascii_only=ascii_only)
        read = json.loads(made)
        assert canonical(read, ascii_only=ascii_only) == made
        assert made.isascii() or not ascii_only
        assert b"\n" not in made
    assert canonical(json.loads(canonical(value, ascii_only=True))) == canonical(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"b": 1, "a": [1.5, None, True]}, '{"a":[1.5,null,true],"b":1}'),
        ({"\U0001f600": 1, "\uffff": 2, "é": 3}, '{"é":3,"\uffff":2,"\U0001f600":1}'),
        ("\ud800x\udfff", '"\ufffdx\ufffd"'),
        ({chr(0xD800): 1, chr(0xDFFE): 2}, '{"\ufffd":2}'),
        ("\u2028\x7f\"\\\n", '"\u2028\x7f\\"\\\\\\n"'),
        ([math.nan, math.inf, -math.inf], '["nan","inf","-inf"]'),
        ({1: Decimal("1.5"), None: (2,)}, '{"1":"1.5","None":[2]}'),
    ],
)  # fmt: skip
def test_each_value_has_one_form(value: object, expected: str) -> None:
    assert canonical(value) == expected.encode()


def test_what_is_deep_or_long_has_a_form() -> None:
    value: Any = 1
    for _ in range(100_000):
        value = [value]
    assert canonical(value) == b"[" * MAX_DEPTH + json.dumps(TOO_DEEP).encode() + b"]" * MAX_DEPTH
    for text in ("[" * 5000 + "]" * 5000, '{"a":' * 900 + "1e999" + "}" * 900, "9" * 5000, "-" + "9" * 131_000, "1" * 400 + ".5"):
        made = canonical(from_json(text))
        assert canonical(json.loads(made)) == made
    assert len(canonical(10 ** (2 * sys.get_int_max_str_digits()))) > 1000


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("2026-03-30T10:11:12.345678+00:00", "2026-03-30T10:11:12.345Z"),
        ("2026-03-30T10:11:12.999999+02:00", "2026-03-30T08:11:12.999Z"),
        ("2026-03-30T10:11:12-03:30", "2026-03-30T13:41:12.000Z"),
        ("1890-01-01T00:00:00+00:53:28", "1889-12-31T23:06:32.000Z"),
        ("0001-01-01T00:00:00+00:00", "0001-01-01T00:00:00.000Z"),
        ("9999-12-31T23:59:59.999999+00:00", "9999-12-31T23:59:59.999Z"),
        *((odd, odd) for odd in (
            "infinity", "-infinity", "0044-03-15T00:00:00+00:00 BC", "10000-01-01T00:00:00+00:00",
            "294276-12-31T23:59:59.999999+00:00",
            "0001-01-01T00:00:00+05:00", "9999-12-31T23:59:59-01:00",
        )),
    ],
)  # fmt: skip
def test_a_time_of_postgres_has_one_form(given: str, expected: str) -> None:
    assert utc_text(given) == expected
    assert utc_text(expected) == expected


@pytest.mark.parametrize(
    "text",
    ["", "now", "2026-03-30", "2026-03-30T10:11:12", "2026-02-30T10:11:12Z", "20260330T101112Z",
    "2026-W01-1T00:00:00Z", "infinity\n",
     "２０２６-03-30T10:11:12Z", "2026-03-30T10:11:12.3456789Z", "0044-03-15T00:00:00+00:00 BC " + "x" * 99],
)  # fmt: skip
def test_what_is_no_time_is_none(text: str) -> None:
    with pytest.raises(ValueError):
        utc_text(text)


@pytest.mark.parametrize(
    "text", ["2026-03-30T10:11:12Z", "2026-03-30T10:11:12.345+00:00", "2026-03-30T10:11:12.3456Z", "infinity"]
)
def test_a_time_of_the_ledger_has_no_other_form(text: str) -> None:
    with pytest.raises(ValueError):
        moment_of(text)


@given(st.datetimes(), st.integers(-1439, 1439) | st.none())
@settings(max_examples=50, deadline=None)
def test_every_moment_has_its_form(moment: datetime, minutes: int | None) -> None:
    zone = None if minutes is None else timezone(timedelta(minutes=minutes))
    made = utc(moment.replace(tzinfo=zone))
    assert utc(moment_of(made)) == made
    assert utc_text(made) == made
    if 1 < moment.year < 9999:
        exact = moment.replace(tzinfo=zone or UTC)
        assert timedelta() <= exact - moment_of(made) < timedelta(milliseconds=1)


async def test_whatever_time_postgres_writes_is_read(database: Database) -> None:
    """In the zones that a database may be in; it says itself what that is in UTC."""
    moments = [
        "-infinity", "infinity", "0044-03-15 12:00:00Z BC", "4713-01-01 00:00:00Z BC", "0001-01-01 00:00:00Z",
        "0001-01-01 09:00:00Z",
        "1890-06-01 00:00:00.5Z", "1969-12-31 23:59:59.999999Z", "2026-03-29 01:00:00.123456Z", "9999-12-31 23:59:59.999999Z",
        "10000-01-01 00:00:00Z", "294276-12-31 23:59:59Z",
    ]  # fmt: skip
    async with database.connection() as connection:
        for zone in ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Pacific/Kiritimati"):
            await connection.execute(f"SET TimeZone = '{zone}'")
            for row in await connection.fetch(
                "SELECT to_json(at) #>> '{}' AS text, at >= '0001-01-01Z' AND at < '10000-01-01Z' AS plain,"
                """ to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') AS utc"""
                " FROM unnest($1::text[]::timestamptz[]) at",
                moments,
            ):
                made = utc_text(row["text"])
                assert utc_text(made) == made
                assert made in ((row["utc"],) if row["plain"] and made.endswith("Z") else (row["text"],)), (zone, row["text"])
        await connection.execute("RESET TimeZone")
