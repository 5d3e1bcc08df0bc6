"""Cells of tables that spreadsheets open: text from outside, which must not be executed there."""

from __future__ import annotations

import re

from archiver.observe.redact import harmless, redact

# What a spreadsheet takes for a formula at the beginning of a field, behind what it strips from one. A field begins at a
# semicolon too: where that is what separates fields, our quotes are none.
_FORMULA = re.compile(r"(?:\A|;)(?=[\s\"']*[=+\-@\uff1d\uff0b\uff0d\uff20])")


def cell(value: object) -> str:
    """A value without secrets and control characters; what a spreadsheet would take for a formula begins with an apostrophe."""
    return "" if value is None else _FORMULA.sub(r"\g<0>'", harmless(redact(str(value))))
