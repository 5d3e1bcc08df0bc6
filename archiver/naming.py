"""Names in the store that are safe: inside it, unique, and valid on every operating system."""

from __future__ import annotations

import itertools
import re
import string
import unicodedata
from collections.abc import Iterable
from datetime import UTC, datetime

from pathvalidate import sanitize_filename

from archiver.observe.redact import redact

MAX_SOURCE_NAME = 1000
"""Characters of the platform's name of a file that are kept."""

MAX_NAME_BYTES = 180
"""A cleaned file name is at most this long in UTF-8: below the 255 of file systems, with room for a marker."""

DEVICE_NAME = re.compile(r"(?:con|prn|aux|nul|clock\$|conin\$|conout\$|(?:com|lpt)[0-9¹²³])\s*(?:\.|$)", re.IGNORECASE)
"""What Windows takes for a device, whatever the suffix."""


def path_part(text: str) -> str:
    """A session ID or bot name as one part of a path: `:` becomes `~`; a leading or trailing dot and the first letter of a
    Windows device name are percent-encoded. One to one, as `~` and `%` are in neither, and never too long for a file system.
    """
    text = text.replace(":", "~")
    if text.endswith("."):
        text = text[:-1] + "%2E"
    if text.startswith(".") or DEVICE_NAME.match(text):
        text = f"%{ord(text[0]):02X}{text[1:]}"
    return text


QUARANTINE = "quarantine"
"""The folder of what was no recording, and may be the only copy."""

_SPACE = "".join(c for c in map(chr, range(0x3001)) if c.isspace())


class PathTemplate:
    """Where in the store a recording lies. Each of `{session_id}`, `{kind}` and `{file_name}` must occur, so that two
    files never meet in one key; `{file_name}` in the last part, so that a session's folder is known before its files are.

    Where something else follows a session ID or a bot's name in one part of the path, as in `{session_id}-{file_name}`, the
    character between them is percent-encoded in the former: "a-b" and "c" must not give what "a" and "b-c" give.
    """

    FIELDS = ("bot", "date", "session_id", "kind", "file_name")

    def __init__(self, text: str) -> None:
        self.text = text
        try:
            self._parts = list(string.Formatter().parse(text))
        except ValueError as error:
            raise ValueError(f"not a path template: {error}") from None
        fields = [name for _, name, _, _ in self._parts if name is not None]
        for _, name, spec, conversion in self._parts:
            if name is None:
                continue
            if name not in self.FIELDS:
                raise ValueError(f"{{{name}}} is not known; known are {', '.join('{' + f + '}' for f in self.FIELDS)}")
            if conversion or (spec and (name != "date" or "{" in spec)):
                raise ValueError(f"{{{name}}} takes no format (only {{date:%Y-%m-%d}} does)")
        for needed in ("session_id", "kind", "file_name"):
            if needed not in fields:
                raise ValueError(f"{{{needed}}} is missing: without it two files could meet in one key")
        self._ends = self._separators()
        head, _, tail = text.rpartition("/")
        if "{file_name}" not in tail or "{file_name}" in head:
            raise ValueError("{file_name} must stand in the last part of the path, and only there")
        sample = self.render(bot="b", date=datetime(2024, 2, 29, tzinfo=UTC), session_id="s", kind="k", file_name="f.wav")
        segments = sample.split("/")
        if text.startswith("/") or any(part in ("", ".", "..") for part in segments):
            raise ValueError("the path is relative to storage.url: no leading '/', no empty part, no '.' or '..'")
        if any(re.search(r'[\x00-\x1f\\<>:"|?*]|[ .]$', part) or DEVICE_NAME.match(part) for part in segments):
            raise ValueError("a part of the path is one that some file systems refuse")
        if text.split("/", maxsplit=1)[0].casefold() == QUARANTINE or any(part.startswith(".") for part in segments):
            raise ValueError("no part may begin with '.', nor the path with quarantine/: the archiver keeps its own files there")

    def _separators(self) -> dict[str, str]:
        """The character that ends a bot's name or a session ID, where another field follows in the same part of the path."""
        found = {}
        for (_, name, _, _), (literal, following, _, _) in itertools.pairwise(self._parts):
            if name in ("bot", "session_id") and following is not None and "/" not in literal:
                if not literal or literal[0] in "%0123456789ABCDEF":
                    raise ValueError(f"{{{name}}} and {{{following}}} need a character between them, neither % nor 0-9 A-F")
                found[str(name)] = literal[0]
        return found

    def render(self, *, bot: str, date: datetime, session_id: str, kind: str, file_name: str) -> str:
        """The store key of one file. `file_name` is clean already; the rest is made safe here."""
        values = {"bot": path_part(bot), "session_id": path_part(session_id), "kind": kind, "file_name": file_name}
        for field, end in self._ends.items():
            values[field] = values[field].replace(end, f"%{ord(end):02X}")
        made: list[str] = []
        for literal, name, spec, _ in self._parts:
            made.append(literal)
            if name == "date":
                made.append(date.astimezone(UTC).strftime(spec or "%Y-%m-%d"))
            elif name is not None:
                made.append(values[name])
        key = "".join(made)
        # A session or a bot may be called so; the folder is the archiver's own, also where a file system knows no case.
        return f"%{ord(key[0]):02X}{key[1:]}" if key.split("/")[0].casefold() == QUARANTINE else key

    def __repr__(self) -> str:
        return f"PathTemplate({self.text!r})"


def source_name(given: str) -> str:
    """What a file of the platform is known by, from attempt to attempt: its name there, without secrets. One that is a signed URL
    is so without its query: another attempt is given another signature. As the database keeps it; the same for what it keeps.
    """
    # No more of it than is kept and a secret may be long: two hundred names of a hostile answer stop the event loop else.
    name = given[: 4 * MAX_SOURCE_NAME].replace("\0", "\ufffd").encode("utf-8", "replace").decode()
    if redact(name) != name:
        name = redact(name.partition("?")[0].partition("#")[0])
    return name[:MAX_SOURCE_NAME]


def clean_file_name(given: str, taken: Iterable[str]) -> str:
    """A name that cannot leave its folder, is valid on every operating system, and differs from those in `taken`.

    Names are compared as a careless file system does: without case, in one Unicode form. Deterministic: the same answer of
    the platform gives the same names, so that a second run meets its own work. Never empty, never hidden.
    """
    return FileNames(taken).take(given)


class FileNames:
    """The names in one folder. Many may want to be called alike: each costs the same, however many there are."""

    def __init__(self, taken: Iterable[str]) -> None:
        self._folded = {_fold(name) for name in taken}
        self._numbers: dict[str, int] = {}  # the last that was given, by what no mark cuts off of a name

    def take(self, given: str) -> str:
        """What `clean_file_name` says; it is taken from now on."""
        stem, end = _cleaned(given)
        candidate = _cut(stem, MAX_NAME_BYTES - len(end.encode())) + end
        number = self._numbers.get(alike := _fold(_cut(stem, MAX_NAME_BYTES - len(end.encode()) - 8) + end), 1)
        while (folded := _fold(candidate)) in self._folded:
            number += 1
            mark = f"~{number}"
            candidate = _cut(stem, MAX_NAME_BYTES - len((mark + end).encode())) + mark + end
        self._numbers[alike] = number
        self._folded.add(folded)
        return candidate


def _cleaned(given: str) -> tuple[str, str]:
    """A name that is valid, and its suffix apart, with the dot."""
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
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def _cut(text: str, size: int) -> str:
    """At most `size` bytes of UTF-8, never half a character."""
    return text.encode()[:size].decode("utf-8", "ignore").rstrip(" .") or "recording"
