"""Cells of tables that spreadsheets open: text from outside, which must not be executed there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import chain

from archiver.observe.redact import SEPARATOR, harmless, hold_no_secret, redact

# What a spreadsheet takes for a formula at the beginning of a field, behind what it strips from one. A field begins at a
# semicolon too: where that is what separates fields, our quotes are none.
_FORMULA = re.compile(r"(?:\A|;)(?=[\s\"']*[=+\-@\uff1d\uff0b\uff0d\uff20])")
# The same in texts that stand together; a separator is white space, too, but of none of them.
_ANY_FORMULA = re.compile(r"(?:\A|[;\x1f])(?=(?:(?!\x1f)[\s\"'])*[=+\-@\uff1d\uff0b\uff0d\uff20])")


def cell(value: object) -> str:
    """A value without secrets and control characters; what a spreadsheet would take for a formula begins with an apostrophe."""
    return "" if value is None else _FORMULA.sub(r"\g<0>'", harmless(redact(str(value))))


def cells(rows: Iterable[Iterable[object]]) -> Sequence[Sequence[str]]:
    """`cell` of each value; they are looked at together first, for nearly always there is nothing to be done about them."""
    texts = [["" if value is None else str(value) for value in row] for row in rows]
    every = list(chain.from_iterable(texts))
    together = SEPARATOR.join(every)
    plain = together.replace(SEPARATOR, " ").isprintable() and together.count(SEPARATOR) < max(len(every), 1)
    if not plain or not hold_no_secret(tuple(set(every))):
        return [list(map(cell, row)) for row in texts]
    if _ANY_FORMULA.search(together):
        return [[_FORMULA.sub(r"\g<0>'", text) for text in row] for row in texts]
    return texts
