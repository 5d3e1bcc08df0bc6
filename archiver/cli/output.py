"""What commands print: tables for people, one JSON document with --json. Everything that came from outside is made harmless."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from archiver.observe.logs import flush
from archiver.observe.redact import harmless, redact, redact_value

if TYPE_CHECKING:  # rich is imported when something is drawn: --json and messages need none of it
    from rich.console import Console
    from rich.table import Table

json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")


def console() -> Console:
    """Standard output. Not on a terminal: plain and wide, so that a pipe sees whole lines. `:bug:` in an ID stays as it is."""
    from rich.console import Console

    return Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else 2000)


def print_json(document: Any, *, indent: int | None = 2) -> None:
    """The document, and nothing else on standard output; without `indent` on one line."""
    click.echo(json.dumps(redact_value(document), indent=indent, default=str))


# What a spreadsheet takes for a formula at the beginning of a field, behind what it strips from one. A field begins at a
# semicolon too: where that is what separates fields, our quotes are none.
_FORMULA = re.compile(r"(?:\A|;)(?=[\s\"']*[=+\-@\uff1d\uff0b\uff0d\uff20])")


def print_csv(columns: Sequence[str] | None, rows: Iterable[Iterable[object]]) -> None:
    """RFC 4180, every field quoted; what a spreadsheet would take for a formula begins with an apostrophe. Without `columns`
    these are more rows of one that was begun.
    """
    writer = csv.writer(sys.stdout, quoting=csv.QUOTE_ALL)
    if columns is not None:
        writer.writerow(columns)
    for row in rows:
        writer.writerow("" if value is None else _FORMULA.sub(r"\g<0>'", printable(value)) for value in row)


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


def moment(text: str) -> str:
    """A time of the database, to the millisecond, in UTC; it comes with whatever zone the server is in."""
    return datetime.fromisoformat(text).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def size(count: float) -> str:
    """Bytes for people: 1.2 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


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
