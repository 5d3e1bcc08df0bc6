"""Reading JSON that may be anything: each field is what it should be, or ValueError says which is not. Values are never quoted:
they may be personal, or secret.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any

from archiver.evidence.canonical import utc_text

MAX_INTEGER = 2**63 - 1
MAX_ORDINAL = 2**31 - 1

_SHA256 = re.compile("[0-9a-f]{64}")


class Fields:
    """Those of one object. What is missing is null."""

    def __init__(self, value: object, what: str) -> None:
        if not isinstance(value, dict):
            raise ValueError(f"{what} is no object")  # noqa: TRY004 - what is read is wrong, not who reads
        self.all: dict[str, Any] = value
        self.what = what

    def wrong(self, name: str) -> ValueError:
        """The error for this field."""
        return ValueError(f"{name} of {self.what} is not what it should be")

    def exactly(self, names: Collection[str]) -> None:
        """Raises ValueError if there are others, or fewer."""
        if self.all.keys() != set(names):
            raise ValueError(f"{self.what} has other fields than it should have")

    def object(self, name: str) -> Fields:
        """An object."""
        return Fields(self.all.get(name), name)

    def objects(self, name: str) -> Iterator[Fields]:
        """A list of objects."""
        found = self.all.get(name)
        if not isinstance(found, list):
            raise self.wrong(name)
        return (Fields(each, name) for each in found)

    def text(self, name: str, pattern: re.Pattern[str] | None = None) -> str:
        """A text, which the whole `pattern` has to match."""
        found = self.all.get(name)
        if not isinstance(found, str) or (pattern is not None and pattern.fullmatch(found) is None):
            raise self.wrong(name)
        return found

    def text_or_none(self, name: str, pattern: re.Pattern[str] | None = None) -> str | None:
        """A text or null."""
        return None if self.all.get(name) is None else self.text(name, pattern)

    def word(self, name: str, words: Collection[str]) -> str:
        """One of these."""
        found = self.text(name)
        if found not in words:
            raise self.wrong(name)
        return found

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts."""
        found = self.all.get(name)
        if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
            raise self.wrong(name)
        return tuple(found)

    def sha256(self, name: str) -> str:
        """64 small hexadecimal digits."""
        return self.text(name, _SHA256)

    def integer(self, name: str, least: int = 0, most: int = MAX_INTEGER) -> int:
        """A number without a fraction, within these bounds."""
        found = self.all.get(name)
        if type(found) is not int or not least <= found <= most:
            raise self.wrong(name)
        return found

    def integer_or_none(self, name: str, least: int = 0, most: int = MAX_INTEGER) -> int | None:
        """Such a number or null."""
        return None if self.all.get(name) is None else self.integer(name, least, most)

    def number_or_none(self, name: str) -> float | None:
        """A number that is not negative, or null."""
        found = self.all.get(name)
        if found is None or (type(found) in (int, float) and 0 <= found <= MAX_INTEGER):
            number: float | None = found
            return number
        raise self.wrong(name)

    def boolean(self, name: str) -> bool:
        """True or false."""
        found = self.all.get(name)
        if not isinstance(found, bool):
            raise self.wrong(name)
        return found

    def time(self, name: str) -> str:
        """A time in the one form (see `utc_text`)."""
        found = self.text(name)
        try:
            return utc_text(found)
        except ValueError:
            raise self.wrong(name) from None

    def time_or_none(self, name: str) -> str | None:
        """Such a time or null."""
        return None if self.all.get(name) is None else self.time(name)
