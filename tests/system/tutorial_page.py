"""The commands of docs/tutorial.md, and whether what they print is what the page says.

Two kinds of blocks count. A `toml` block is the whole of archiver.toml. In a `console` block a line `$ ...` is a command, and
what follows is what it prints, both streams together. The rule for what may differ:

- A line of nothing but `...` stands for any lines, `...` in a line for any text within it; how wide the gaps between words are,
  doesn't matter.
- Dates without a time are all as many days apart from those on the page.
- Session IDs, SHA-256 and UUIDs differ; what is the same on the page is the same here, and only that. A command has the value
  that an earlier output had in the place of the page's.
- Times of day are only to look like such.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

ANYTHING = "..."

_VARIES = re.compile(
    r"(?P<named>\b[0-9a-f]{64}\b|\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b|\b[0-9a-f]{32}\b|\b[0-9a-f]{24}\b)"
    r"|(?P<date>\b\d{4}-\d\d-\d\d\b)"
    r"|(?P<time>\b\d\d:\d\d(?::\d\d(?:\.\d\d\d)?)?\b)"
    r"|(?P<any>\.\.\.)"
    r"|(?P<gap>\s+)"
)

_DATE = re.compile(r"\b\d{4}-\d\d-\d\d\b")


@dataclass(frozen=True)
class Step:
    """A command and what the page says that it prints; without a command, `text` is what archiver.toml becomes."""

    line: int
    command: str | None
    text: tuple[str, ...]


def steps_of(page: Path) -> Iterator[Step]:
    """The steps of a page, in their order."""
    kind, block = "", list[tuple[int, str]]()
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if not line.startswith("```"):
            block.append((number, line))
        elif not kind:
            kind, block = line.removeprefix("```") or "text", []
        else:
            if kind == "toml":
                yield Step(block[0][0], None, tuple(text for _, text in block))
            elif kind == "console":
                yield from _commands(block)
            kind = ""


def _commands(block: list[tuple[int, str]]) -> Iterator[Step]:
    starts = [at for at, (_, line) in enumerate(block) if line.startswith("$ ")]
    assert starts, block
    assert starts[0] == 0, f"output before the first command: {block[0]}"
    for start, end in zip(starts, [*starts[1:], len(block)], strict=True):
        last = start
        while block[last][1].endswith("\\"):
            last += 1
        command = "\n".join(line for _, line in block[start : last + 1]).removeprefix("$ ")
        yield Step(block[start][0], command, tuple(line for _, line in block[last + 1 : end]))


@dataclass(frozen=True)
class Reading:
    """What the page's values are here, as far as they have been met."""

    named: Mapping[str, str] = field(default_factory=dict)
    shift: timedelta | None = None

    def here(self, text: str) -> str:
        """A command, or a file, of the page with the values of here."""
        for theirs, ours in self.named.items():
            text = text.replace(theirs, ours)
        shift = self.shift or timedelta()
        return _DATE.sub(lambda found: (date.fromisoformat(found[0]) + shift).isoformat(), text)

    def read(self, said: tuple[str, ...], printed: tuple[str, ...]) -> Reading | None:
        """What is known after these lines; None if they are not what the page says."""
        if not said:
            return self if not printed else None
        if said[0].strip() == ANYTHING:
            return next((found for at in range(len(printed) + 1) if (found := self.read(said[1:], printed[at:]))), None)
        if not printed or not (after := self._read_line(said[0].rstrip(), printed[0].rstrip())):
            return None
        return after.read(said[1:], printed[1:])

    def _read_line(self, said: str, printed: str) -> Reading | None:
        pattern, values, end = "", list[tuple[str, str]](), 0
        for found in _VARIES.finditer(said):
            pattern += re.escape(said[end : found.start()])
            kind, text, end = str(found.lastgroup), found[0], found.end()
            if kind == "named":
                pattern += rf"([0-9a-f-]{{{len(text)}}})"
                values.append((kind, text))
            elif kind == "date":
                pattern += r"(\d{4}-\d\d-\d\d)"
                values.append((kind, text))
            else:
                pattern += {"time": re.sub(r"\d", r"\\d", text), "any": ".*", "gap": r"\s+"}[kind]
        # Where the rest of a line is left out, it may be nothing.
        met = re.fullmatch(pattern + re.escape(said[end:]), printed + " " * said.endswith(ANYTHING))
        if met is None:
            return None
        named, shift = dict(self.named), self.shift
        for (kind, theirs), ours in zip(values, met.groups(), strict=True):
            if kind == "date":
                apart = date.fromisoformat(ours) - date.fromisoformat(theirs)
                if shift not in (None, apart):
                    return None
                shift = apart
            elif named.setdefault(theirs, ours) != ours:
                return None
        return Reading(named, shift) if len(set(named.values())) == len(named) else None
