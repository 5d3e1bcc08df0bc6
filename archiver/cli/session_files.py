"""Lists of sessions as people have them: one ID a line, or CSV with a header; from a file or standard input."""

from __future__ import annotations

import csv
import errno
import io
import os
import re
import select
import stat
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from archiver.errors import UsageError
from archiver.observe.redact import redact

MAX_LINE = 1_000_000
"""Bytes of a line; a longer one is rejected without being read into memory."""

SEPARATORS = {",": "','", ";": "';'", "\t": "a tab"}
"""What may stand between the columns of a CSV, and its name. Spreadsheets of half the world write semicolons."""

SPELT = {"sessionid": "session_id", "session id": "session_id", "session-id": "session_id"}
"""Other spellings of the column; the platform's own exports have sessionId."""

_KINDS = (
    (b"PK\x03\x04", "a workbook of Excel, or another ZIP archive", "save the sheet as CSV (UTF-8)"),
    (b"\xd0\xcf\x11\xe0", "a workbook of Excel", "save the sheet as CSV (UTF-8)"),
    (b"\x1f\x8b", "compressed", "unpack it on the way: gunzip -c FILE | archiver enqueue --file -"),
    (b"\xff\xfe", "UTF-16", "save it as UTF-8, or: iconv -f UTF-16 -t UTF-8 FILE | archiver enqueue --file -"),
    (b"\xfe\xff", "UTF-16", "save it as UTF-8, or: iconv -f UTF-16 -t UTF-8 FILE | archiver enqueue --file -"),
    (b"{", "JSON", "write one ID a line, such as: jq -r '.[].sessionId' FILE | archiver enqueue --file -"),
    (b"[", "JSON", "write one ID a line, such as: jq -r '.[].sessionId' FILE | archiver enqueue --file -"),
    (b"<", "XML or HTML", "write one ID a line, or CSV with a header that has session_id"),
)
"""How files begin that are no such list, what they are, and what to do."""


TORN = "a line break within quotes: write each record on one line"
UNCLOSED = "a quote that is never closed"
MAX_QUOTED = 100
"""Lines that a value within quotes may go on for. A stray quote must not cost the rest of a file."""


class LineError(ValueError):
    """A line that cannot be enqueued. `group` is the same for all lines with the same mistake, whatever their values."""

    def __init__(self, why: str, group: str = "") -> None:
        super().__init__(why)
        self.group = group or why


@dataclass(frozen=True)
class Record:
    """A session as it is given: its columns, or why the line has none. Line 0: a command-line argument."""

    line: int
    text: str
    values: dict[str, str] | None = None
    error: LineError | None = None


@contextmanager
def open_lines(file: Path, option: str = "--file") -> Iterator[Iterator[tuple[bytes, bool]]]:
    """The lines of a file that `option` named, `-` for standard input: each with whether it is whole, or only the beginning of
    one that is longer than MAX_LINE. Raises UsageError.
    """
    standard = str(file) == "-"
    name = "standard input" if standard else f"{option} {file}"
    try:
        # Opening a FIFO would wait for who writes to it, and hear no signal.
        at = 0 if standard else os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        source = _Source(at, owned=not standard)
        try:
            if stat.S_ISDIR(os.fstat(at).st_mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            yield _lines(io.BufferedReader(source))
        finally:
            source.leave()
    except OSError as error:
        raise UsageError(f"{name}: {error.strerror}", hint="name a readable file, or - for standard input") from None


class _Source(io.RawIOBase):
    """A file, a pipe or a terminal that ends when it is left, also for a thread that waits for its next line. An `owned`
    descriptor is closed then.
    """

    def __init__(self, at: int, *, owned: bool) -> None:
        self._at = at
        self._owned = owned
        self._left = threading.Event()
        self._reading = threading.Lock()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        while not self._left.is_set():
            with self._reading:
                if self._left.is_set() or not select.select([self._at], [], [], 0.2)[0]:
                    continue
                try:
                    data = os.read(self._at, len(buffer))
                except BlockingIOError:  # somebody else has read it
                    continue
            buffer[: len(data)] = data
            return len(data)
        return 0

    def leave(self) -> None:
        """Have whoever reads see the end."""
        self._left.set()
        if self._owned:
            with self._reading:  # a number that is closed may soon be another file's
                os.close(self._at)


def _lines(stream: BinaryIO) -> Iterator[tuple[bytes, bool]]:
    """A line of a gigabyte must not fill the memory."""
    while line := stream.readline(MAX_LINE):
        whole = line
        while not line.endswith(b"\n") and len(line) == MAX_LINE:
            line = stream.readline(MAX_LINE)
        yield (whole, True) if line is whole else (whole[:100], False)


def read_records(lines: Iterator[tuple[bytes, bool]]) -> Iterator[Record]:
    """A record for each line but the header, comments and blank ones. Raises UsageError, before the first record, where the whole
    is no list of sessions.
    """
    header: list[str] | None = None
    separator = ","
    first = True
    numbered = _Numbered(lines)
    for number, (raw, whole) in numbered:
        if number == 1:
            _check_kind(raw)
        if not whole:
            first = False
            yield Record(number, "", error=LineError(f"longer than {MAX_LINE:,} bytes"))
            continue
        text = raw.rstrip(b"\r\n")
        try:
            line = text.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            line = text.decode("utf-8", "replace")
            mistake = LineError("not UTF-8")
            if header is not None and _is_torn(line, separator):
                mistake = _skip_quoted(numbered)
            yield Record(number, redact(line)[:200], error=mistake)
            continue
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if first:
            if re.fullmatch(r"sep=[,;\t]", line, re.IGNORECASE):  # a spreadsheet's word to itself
                continue
            first = False
            _check_kind(line.lstrip().encode())
            found = _find_header(line, number)
            if found is not None:
                header, separator = found
                continue
        if header is None:
            yield Record(number, line, {"session_id": line.strip()})
            continue
        try:
            yield Record(number, line, _columns(header, _fields(line, separator)))
        except LineError as error:
            yield Record(number, line, error=_skip_quoted(numbered) if _is_torn(line, separator) else error)


class _Numbered:
    """Lines with their numbers, from 1. What was read ahead can be given back."""

    def __init__(self, lines: Iterator[tuple[bytes, bool]]) -> None:
        self._lines = enumerate(lines, 1)
        self._ahead: deque[tuple[int, tuple[bytes, bool]]] = deque()

    def __iter__(self) -> Iterator[tuple[int, tuple[bytes, bool]]]:
        return self

    def __next__(self) -> tuple[int, tuple[bytes, bool]]:
        return self._ahead.popleft() if self._ahead else next(self._lines)

    def give_back(self, lines: Sequence[tuple[int, tuple[bytes, bool]]]) -> None:
        """Let these come next, in their order."""
        self._ahead.extendleft(reversed(lines))


def _skip_quoted(lines: _Numbered) -> LineError:
    """Leave out the lines up to a closing quote: what stands within quotes is no record, whatever it looks like. Without one
    within MAX_QUOTED lines it is a stray quote, and they are records.
    """
    ahead = []
    for number, (raw, whole) in islice(lines, MAX_QUOTED):
        if whole and raw.count(b'"') % 2:
            return LineError(f"{TORN} (all up to line {number} is left out)", TORN)
        ahead.append((number, (raw, whole)))
    lines.give_back(ahead)
    return LineError(UNCLOSED)


def _check_kind(start: bytes) -> None:
    for mark, kind, hint in _KINDS:
        if start.startswith(mark):
            raise UsageError(f"the file is {kind}, no list of session IDs", hint=hint)
    if b"\0" in start[:2]:
        raise UsageError("the file is UTF-16 or binary, no list of session IDs", hint="save it as UTF-8")


def _find_header(line: str, number: int) -> tuple[list[str], str] | None:
    """The columns of a CSV and what separates them, or None where the first line is an ID. Raises UsageError."""
    most = 1
    for separator in SEPARATORS:
        try:
            fields = _fields(line, separator)
        except LineError:
            continue
        names = [SPELT.get(name.strip().lower(), name.strip().lower()) for name in fields]
        if "session_id" in names:
            given = [name for name in names if name]  # spreadsheets end a line with the separators of empty columns
            if len(set(given)) != len(given):
                raise UsageError(f"line {number}: the CSV's header has a column twice", hint="rename one of them")
            return names, separator
        most = max(most, len(fields))
    if most > 1:
        raise UsageError(
            f"line {number}: {most} columns, and none of them is called session_id",
            hint="begin the file with a header, such as session_id,started_at,ended_at, or write one ID a line",
        )
    return None


def _fields(line: str, separator: str) -> list[str]:
    try:
        return next(csv.reader(io.StringIO(line), delimiter=separator, strict=True))
    except (csv.Error, StopIteration) as error:
        raise LineError(f"broken CSV: {error}") from None


def _is_torn(line: str, separator: str) -> bool:
    """Whether a quote is open at the end of the line."""
    try:
        _fields(line, separator)
    except LineError as error:
        return "end of data" in str(error) or ("field limit" in str(error) and line.count('"') % 2 == 1)
    return False


def _columns(header: list[str], values: list[str]) -> dict[str, str]:
    if len(values) != len(header):
        raise LineError(f"{len(values)} fields, the header has {len(header)}")
    return {name: value for name, value in zip(header, values, strict=True) if name}
