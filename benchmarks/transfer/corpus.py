"""The recordings of a run: WAVs of one size, each of its own content, and the proof that a client brought all of them."""

from __future__ import annotations

import hashlib
import os
import re
import struct
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

UNITS = {"": 1, "KB": 1024, "MB": 1024**2, "GB": 1024**3}
HEADER_BYTES = 44


class NotTheSameWork(Exception):
    """A client did not bring every byte of every file: its rate says nothing."""


@dataclass(frozen=True)
class File:
    """One recording: the key that it has at its origin and gets at its target."""

    session: str
    name: str
    bytes: int
    sha256: str

    @property
    def key(self) -> str:
        """A folder a session, as in production."""
        return f"{self.session}/recording/{self.name}"


@dataclass(frozen=True)
class Corpus:
    """What lies in `folder`."""

    folder: Path
    files: Sequence[File]

    @property
    def bytes(self) -> int:
        """All of them together."""
        return sum(file.bytes for file in self.files)


def parse_size(text: str) -> int:
    """`"64KB"` is 65,536 bytes. Raises ValueError."""
    found = re.fullmatch(r"(\d+)(KB|MB|GB)?", text.strip(), re.IGNORECASE)
    if found is None:
        raise ValueError(f"{text!r} is not a size such as 64KB or 8MB")
    return int(found[1]) * UNITS[(found[2] or "").upper()]


def make_corpus(folder: Path, size: int, count: int, distinct: int) -> Corpus:
    """So many recordings of `size` bytes. Those beyond the first `distinct` are links to these, which spares the page cache."""
    noise = os.urandom(size)
    header = _wav_header(size)
    made: list[tuple[Path, str]] = []
    files = []
    for number in range(count):
        session, name = f"s{number:05d}", f"r{number:05d}.wav"
        path = folder / session / "recording" / name
        path.parent.mkdir(parents=True)
        if number < distinct:
            body = b"".join((header, struct.pack("<Q", number), noise))[:size]
            path.write_bytes(body)
            made.append((path, hashlib.sha256(body).hexdigest()))
        else:
            path.hardlink_to(made[number % distinct][0])
        files.append(File(session, name, size, made[number % distinct][1]))
    return Corpus(folder, files)


def _wav_header(size: int) -> bytes:
    """16-bit PCM, 8 kHz, one channel; the archiver holds its sizes against the length that came."""
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", size - 8, b"WAVE", b"fmt ", 16, 1, 1, 8000, 16000, 2, 16, b"data", size - HEADER_BYTES
    )


def make_folders(target: Path, files: Sequence[File]) -> None:
    """The folders of the sessions, for clients that make none."""
    for file in files:
        (target / file.key).parent.mkdir(parents=True, exist_ok=True)


def check_same(client: str, target: Path, files: Sequence[File]) -> None:
    """Read every file below `target` again. Raises NotTheSameWork for the first that is not what its origin has."""

    def sha256(file: File) -> str | None:
        try:
            with (target / file.key).open("rb") as opened:
                return hashlib.file_digest(opened, "sha256").hexdigest()
        except FileNotFoundError:
            return None

    check_all(client, files, sha256)


def check_all(client: str, files: Sequence[File], sha256: Callable[[File], str | None]) -> None:
    """The same by a function that reads what has come of a file, None if there is nothing."""

    def check(file: File) -> str | None:
        found = sha256(file)
        return None if found == file.sha256 else f"{file.key} differs" if found else f"{file.key} is missing"

    with ThreadPoolExecutor(2) as pool:
        wrong = [found for found in pool.map(check, files) if found]
    if wrong:
        raise NotTheSameWork(f"{client}: of {len(files)} files {len(wrong)} are not as they should be, among them: {wrong[0]}")
