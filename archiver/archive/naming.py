"""Names of files that are safe: unique in their folder, and valid on every operating system."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from pathvalidate import sanitize_filename

from archiver.config.path_template import DEVICE_NAME

MAX_NAME_BYTES = 180
"""A cleaned file name is at most this long in UTF-8: below the 255 of file systems, with room for a marker."""

MIN_NAME_BYTES = 40
"""So many it may always have: a shorter one could not be told from others."""

_RECORD = re.compile(r"session(?:\.[0-9]+)?\.json")
"""Names of sessions' records, which lie beside their recordings."""

_PLAIN = re.compile(r"(?P<stem>[A-Za-z0-9][A-Za-z0-9_-]{0,99})(?P<end>\.[A-Za-z0-9]{1,10})")
"""Names that are valid as they are, unless they are a device's: nearly all are so, and to look closer takes long."""

_SPACE = "".join(c for c in map(chr, range(0x3001)) if c.isspace())


def clean_file_name(given: str, taken: Iterable[str], max_bytes: int = MAX_NAME_BYTES) -> str:
    """A name that cannot leave its folder, is valid on every operating system, and differs from those in `taken`.

    Names are compared as a careless file system does: without case, in one Unicode form. Deterministic: the same answer of
    the platform gives the same names, so that a second run meets its own work. Never empty, never hidden.
    """
    return FileNames(taken, max_bytes).take(given)


class FileNames:
    """The names in one folder, of at most `max_bytes` in UTF-8. Many may want to be called alike: each costs the same, however
    many there are.
    """

    def __init__(self, taken: Iterable[str], max_bytes: int = MAX_NAME_BYTES) -> None:
        self._max_bytes = max_bytes
        self._folded = {_fold(name) for name in taken}
        self._numbers: dict[str, int] = {}  # the last that was given, by what no mark cuts off of a name

    def take(self, given: str) -> str:
        """What `clean_file_name` says; it is taken from now on."""
        stem, end = _cleaned(given)
        candidate = _cut(stem, self._max_bytes - len(end.encode())) + end
        number = self._numbers.get(alike := _fold(_cut(stem, self._max_bytes - len(end.encode()) - 8) + end), 1)
        while (folded := _fold(candidate)) in self._folded or _RECORD.fullmatch(folded):
            number += 1
            mark = f"~{number}"
            candidate = _cut(stem, self._max_bytes - len((mark + end).encode())) + mark + end
        self._numbers[alike] = number
        self._folded.add(folded)
        return candidate


def _cleaned(given: str) -> tuple[str, str]:
    """A name that is valid, and its suffix apart, with the dot."""
    if (plain := _PLAIN.fullmatch(given)) and not DEVICE_NAME.match(given):
        return plain["stem"], plain["end"]
    name = re.split(r"[/\\]", given)[-1]
    name = "".join("_" if unicodedata.category(c)[0] == "C" or c in "\u2028\u2029" else c for c in name)
    name = unicodedata.normalize("NFC", name)
    # Space of every kind: a name of nothing else before its suffix is none to Windows.
    name = name.lstrip(f"{_SPACE}.~").rstrip(f"{_SPACE}.") or "recording"
    stem, dot, suffix = name.rpartition(".")
    if not dot or len(suffix) > 10:
        stem, dot, suffix = name, "", ""
    # Cut before it is made valid, which cuts as well, and the suffix off.
    name = f"{_cut(stem, MAX_NAME_BYTES)}{dot}{suffix}"
    name = str(sanitize_filename(name, replacement_text="_", platform="universal"))
    if DEVICE_NAME.match(name):
        name = f"_{name}"
    stem, dot, suffix = name.rpartition(".") if dot else (name, "", "")
    return stem, f"{dot}{suffix}"


_SUFFIXES = {
    "audio/wav": "wav", "audio/x-wav": "wav", "audio/wave": "wav", "audio/vnd.wave": "wav",
    "audio/mpeg": "mp3", "audio/mp3": "mp3", "audio/ogg": "ogg", "audio/opus": "opus", "audio/webm": "webm",
    "audio/mp4": "m4a", "audio/x-m4a": "m4a", "audio/aac": "aac", "audio/flac": "flac",
}  # fmt: skip


def name_by_place(ordinal: int, media_type: str) -> str:
    """A name for a recording that the platform gave none: by its place in the answer and what it is said to be."""
    return f"recording-{ordinal}.{_SUFFIXES.get(media_type, 'bin')}"


def _fold(name: str) -> str:
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def _cut(text: str, size: int) -> str:
    """At most `size` bytes of UTF-8, never half a character."""
    return text.encode()[:size].decode("utf-8", "ignore").rstrip(" .") or "recording"
