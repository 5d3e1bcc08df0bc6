"""SQL files with named parameters."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

_TOKEN = re.compile(
    r"""--[^\n]* | /\*(?:.*?\*/|.*) | '(?:[^']|'')*' | "(?:[^"]|"")*" | :: | :(?P<name>[a-z]\w*)""", re.VERBOSE | re.DOTALL
)
"""Where a colon means something else (comments, strings, quoted identifiers, casts), or else `:name`. A slice needs its spaces:
`[1 : n]`.
"""


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement as Postgres takes it, and the names of $1, $2 and so on."""

    name: str
    text: str
    parameters: tuple[str, ...]

    @classmethod
    def parse(cls, name: str, source: str) -> Statement:
        """Give each `:name` a number, in the order of their first places."""
        numbers: dict[str, int] = {}

        def number(match: re.Match[str]) -> str:
            parameter = match["name"]
            return match[0] if parameter is None else f"${numbers.setdefault(parameter, len(numbers) + 1)}"

        text = _TOKEN.sub(number, source)
        return cls(name, text, tuple(numbers))

    def arguments(self, values: Mapping[str, Any]) -> list[Any]:
        """The values in the order of their numbers. Raises TypeError where one is missing or unknown."""
        if values.keys() != set(self.parameters):
            wrong = ", ".join(sorted(values.keys() ^ set(self.parameters)))
            raise TypeError(f"statement {self.name}: missing or unknown parameters: {wrong}")
        return [values[parameter] for parameter in self.parameters]


class Statements:
    """The statements in a package's folder: `statements("claim/sessions")` is `claim/sessions.sql`, read once."""

    def __init__(self, package: str) -> None:
        self._folder = resources.files(package)
        self._load = cache(self._read)

    def __call__(self, name: str) -> Statement:
        """The statement of this name."""
        return self._load(name)

    def _read(self, name: str) -> Statement:
        return Statement.parse(name, self._folder.joinpath(f"{name}.sql").read_text(encoding="utf-8"))

    def load(self) -> None:
        """Read all of them now."""
        for _ in self:
            pass

    def __iter__(self) -> Iterator[Statement]:
        """All of them."""
        return map(self, sorted(_names(self._folder)))


def _names(folder: Traversable, prefix: str = "") -> Iterator[str]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _names(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(".sql"):
            yield prefix + entry.name.removesuffix(".sql")
