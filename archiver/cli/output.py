"""What commands print: tables for people, one JSON document with --json. Everything that came from outside is made harmless."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import click

from archiver.observe.cells import cells
from archiver.observe.logs import flush
from archiver.observe.redact import harmless, redact, redact_each

if TYPE_CHECKING:  # rich is imported when something is drawn: --json and messages need none of it
    from rich.console import Console
    from rich.table import Table

json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")


T = TypeVar("T")

BATCH = 500
"""Rows and documents that are looked through together before they are printed."""

ANY_WIDTH = 2000
"""Not on a terminal whole lines are printed."""


def console() -> Console:
    """Standard output. Not on a terminal: plain and wide, so that a pipe sees whole lines. `:bug:` in an ID stays as it is."""
    from rich.console import Console

    return Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else ANY_WIDTH)


def print_json(document: Any, *, indent: int | None = 2) -> None:
    """The document, and nothing else on standard output; without `indent` on one line."""
    click.echo(json.dumps(redact_each([document])[0], indent=indent, default=str))


def print_csv(columns: Sequence[str] | None, rows: Iterable[Iterable[object]]) -> None:
    """RFC 4180, every field quoted; what a spreadsheet would take for a formula begins with an apostrophe. Without `columns`
    these are more rows of one that was begun.
    """
    writer = csv.writer(sys.stdout, quoting=csv.QUOTE_ALL)
    if columns is not None:
        writer.writerow(columns)
    for some in in_batches(rows):
        writer.writerows(cells(some))


def in_batches(values: Iterable[T], length: int = BATCH) -> Iterator[list[T]]:
    """Lists of at most `length` of them."""
    left = iter(values)
    while some := list(islice(left, length)):
        yield some


def table(*columns: str, title: str | None = None, right: Iterable[int] = ()) -> Table:
    """A plain table; `right` lists the columns of numbers."""
    from rich.table import Table

    numbers = set(right)
    made = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for position, column in enumerate(columns):
        made.add_column(column, justify="right" if position in numbers else "left", overflow="fold")
    return made


def printable(value: object, *, keep: str = "") -> str:
    """Text of outside origin for a terminal: no secret, no control character but those to `keep`, nothing that turns the
    direction of writing.
    """
    return harmless(redact(str(value)), keep=keep)


def print_error(message: str, hint: str, *, keep: str = "") -> None:
    """To standard error: what is wrong, and what to do. A message may quote rows that other systems wrote: `keep` is for those
    that cannot.
    """
    flush()
    click.echo(f"error: {printable(message, keep=keep)}", err=True)
    if hint:
        click.echo(f"  next: {printable(hint)}", err=True)


def safe(value: object) -> str:
    """The same for rich: no markup either."""
    from rich.markup import escape

    return escape(printable(value))


def moment(at: str | datetime, *, precise: bool = False) -> str:
    """A time for people, in UTC, whatever zone the server is in: 2026-11-28 02:03:04 UTC; `precise`: with milliseconds."""
    at = datetime.fromisoformat(at) if isinstance(at, str) else at
    at = at.astimezone(UTC)
    return f"{at:%Y-%m-%d %H:%M:%S}" + (f".{at.microsecond // 1000:03} UTC" if precise else " UTC")


_ISO = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)")


def told(value: object, *, precise: bool = False) -> str:
    """A fact for people: text as it is, a time as `moment` has it, a duration in words, all else as JSON. Not harmless yet."""
    match value:
        case datetime():
            return moment(value, precise=precise)
        case timedelta():
            return lasting(value.total_seconds())
        case str() if _ISO.fullmatch(value):
            with suppress(ValueError, OverflowError):  # a month 13, or the year 1 in a zone that is ahead
                return moment(value, precise=precise)
            return value
        case str():
            return value
    return json.dumps(value, ensure_ascii=False, default=str)


def counted(number: int, one: str, many: str = "") -> str:
    """A number and what it counts; `many` where that is not `one` with an s."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def lasting(seconds: float | None) -> str:
    """A time to wait, for people: 45s, 12m, 3h 05m, 12d 4h."""
    if seconds is None:
        return "unknown"
    if seconds < 100:
        return f"{seconds:.0f}s"
    minutes = round(seconds / 60)
    hours = minutes // 60
    if hours < 1:
        return f"{minutes}m"
    if hours < 48:
        return f"{hours}h {minutes % 60:02}m"
    return f"{hours // 24}d {hours % 24}h"


def folded(text: str, width: int, *, indent: int = 2) -> str:
    """Prose in lines of `width`, further ones indented. No word is broken, nor a time: what is copied must not come in pieces."""
    text = _TIME.sub(lambda time: time[0].replace(" ", _HELD), text)
    lines = textwrap.fill(
        text, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False, replace_whitespace=False
    )
    return lines.replace(_HELD, " ")


_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{3})? UTC")
_HELD = "\N{NO-BREAK SPACE}"


def print_folded(out: Console, text: str, *, indent: int = 2) -> None:
    """Print text without markup, made harmless, in lines as wide as the terminal."""
    from rich.markup import escape

    out.print(escape(folded(printable(text), out.width, indent=indent)), soft_wrap=True)


def fitting(
    width: int, columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Iterable[int] = (), head: int = 1
) -> Table | str:
    """Rows of markup as a table where `width` has room for it. If not, without those columns that are empty or 0 in every row;
    and if that does not fit either, each row in lines of its own: its first `head` cells, and below them the others by name.
    """
    from rich.markup import escape
    from rich.text import Text

    def needed(chosen: Sequence[int]) -> int:
        cells = ([columns[n], *(Text.from_markup(row[n]).plain for row in rows)] for n in chosen)
        return sum(max(map(len, column)) for column in cells) + 2 * (len(chosen) - 1)

    every = list(range(len(columns)))
    numbers = set(right)
    used = [n for n in every if n < head or any(row[n] not in ("", "0") for row in rows)]
    for chosen in (every, used):
        if needed(chosen) <= width:
            made = table(*(columns[n] for n in chosen), right=[at for at, n in enumerate(chosen) if n in numbers])
            for row in rows:
                made.add_row(*(row[n] for n in chosen))
            return made
    lines = []
    for row in rows:
        plain = [Text.from_markup(cell).plain for cell in row]
        # A number alone names nothing.
        lines.append(" ".join(f"{columns[n]} {plain[n]}" if plain[n].isdigit() else plain[n] for n in range(head) if plain[n]))
        facts = [f"{columns[n]} {plain[n]}".strip().replace(" ", _HELD) for n in used if n >= head and plain[n]]
        lines.append(folded("  " + ", ".join(facts), width))
    return escape("\n".join(lines))


def print_rows(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Iterable[int] = (), head: int = 1) -> None:
    """Print plain cells, made harmless, as `fitting` lays them out. Without rich, whose import would take longer than many an
    answer.
    """
    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if terminal else ANY_WIDTH
    shown = [[printable(cell) for cell in row] for row in rows]
    numbers = set(right)
    used = [n for n in range(len(columns)) if n < head or any(row[n] not in ("", "0") for row in shown)]
    for chosen in (list(range(len(columns))), used):
        widths = {n: max(len(columns[n]), *(len(row[n]) for row in shown)) for n in chosen}
        if sum(widths.values()) + 2 * (len(chosen) - 1) <= width:
            for number, row in enumerate([columns, *shown]):
                cells = (row[n].rjust(widths[n]) if n in numbers else row[n].ljust(widths[n]) for n in chosen)
                line = "  ".join(cells).rstrip()
                click.echo(click.style(line, bold=True) if terminal and not number and "NO_COLOR" not in os.environ else line)
            return
    for row in shown:
        click.echo(" ".join(f"{columns[n]} {row[n]}" if row[n].isdigit() else row[n] for n in range(head) if row[n]))
        facts = [f"{columns[n]} {row[n]}".strip().replace(" ", _HELD) for n in used if n >= head and row[n]]
        click.echo(folded("  " + ", ".join(facts), width))


def size(count: float) -> str:
    """Bytes for people: 1.2 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
