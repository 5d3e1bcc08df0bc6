"""A JSON document with a list so long that it is printed as it comes: the same text as `json.dumps(document, indent=2)` makes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from json.encoder import encode_basestring_ascii
from typing import Any

import click

from archiver.cli.output import in_batches
from archiver.observe.redact import redact_each, redact_value

INDENT = "  "

_OF_ITEMS = json.JSONEncoder(separators=(f",\n{INDENT * 3}", ": "), default=str)
"""Encodes what lies within items, one value a line. In C, which an encoder that indents is not in older Pythons."""


def print_json_list(document: Mapping[str, Any], name: str, values: Iterable[Mapping[str, Any]]) -> None:
    """Print `document`, in which `name` is a list that `values` are in. None of them is empty."""
    rendered = json.dumps(redact_value({**document, name: []}), indent=2, default=str)
    # No text has a line break as it is: this stands there once.
    before, empty, after = rendered.partition(f'\n{INDENT}"{name}": []')
    assert empty, f"no list {name} in the document"
    click.echo(f'{before}\n{INDENT}"{name}": [', nl=False)
    begun = False
    for some in in_batches(values):
        texts = ",\n".join(_items(redact_each(some)))
        click.echo((",\n" if begun else "\n") + texts, nl=False)
        begun = True
    click.echo((f"\n{INDENT}]" if begun else "]") + after)


def _items(values: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    within = f"{INDENT * 2}{{\n{INDENT * 3}"
    for value in values:
        if any(isinstance(each, dict | list | tuple) for each in value.values()):
            yield INDENT * 2 + _indented(value, INDENT * 2)
        else:
            yield f"{within}{_OF_ITEMS.encode(value)[1:-1]}\n{INDENT * 2}}}"


def _indented(value: Any, margin: str) -> str:
    if isinstance(value, str):
        return encode_basestring_ascii(value)
    if not isinstance(value, dict | list | tuple):
        return json.dumps(value, default=str)
    if not value:
        return "{}" if isinstance(value, dict) else "[]"
    inner = margin + INDENT
    if isinstance(value, dict):
        lines = [f"{inner}{encode_basestring_ascii(key)}: {_indented(each, inner)}" for key, each in value.items()]
    else:
        lines = [f"{inner}{_indented(each, inner)}" for each in value]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return f"{opening}\n" + ",\n".join(lines) + f"\n{margin}{closing}"
