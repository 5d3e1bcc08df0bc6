"""Recordings in telephone format: 8000 Hz, mono, 16-bit PCM in a WAV (RIFF) file.

Generated speech is a row of "syllables" of an eighth of a second, out of a small stock that is computed once, in an
order that the seed decides. It repeats after eight seconds, so a body of any size costs no more memory than one block.
"""

from __future__ import annotations

import hashlib
import math
import os
import random
import struct
from array import array
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from archiver.simulator.flac import flac

if TYPE_CHECKING:
    from collections.abc import Iterator

RiffSizes = Literal["true", "zero", "ffffffff", "7ffff000", "riff_wrong", "wrong"]
Extra = Literal["id3", "list"]

SAMPLE_RATE = 8000  # samples a second
SAMPLE_BYTES = 2
HEADER_BYTES = 44
CHUNK_BYTES = 64 * 1024

_ID3_TAG = b"TAG" + b"a recording".ljust(124, b"\0") + b"\xff"
_LIST_BYTES = 100_000

_SYLLABLE_SAMPLES = SAMPLE_RATE // 8
_SYLLABLES = 32
_BLOCK_SYLLABLES = 64  # eight seconds, 128,000 bytes
_MARK_BYTES = 64


class Body(Protocol):
    """The bytes of one recording. The same bytes every time, `size` of them, in pieces of at most `CHUNK_BYTES`."""

    @property
    def size(self) -> int: ...

    @property
    def etag(self) -> str:
        """A strong entity tag, with its quotes: different bodies have different tags."""

    def pieces(self, start: int, stop: int) -> Iterator[bytes | memoryview]:
        """The bytes from `start` up to `stop`; both within the body."""


def sha256_of(body: Body) -> str:
    """The hexadecimal SHA-256 of the whole body, in constant memory."""
    digest = hashlib.sha256()
    for piece in body.pieces(0, body.size):
        digest.update(piece)
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class RawBody:
    """Bytes as they are."""

    content: bytes

    @property
    def size(self) -> int:
        return len(self.content)

    @property
    def etag(self) -> str:
        return _etag("raw", hashlib.sha256(self.content).hexdigest())

    def pieces(self, start: int, stop: int) -> Iterator[bytes | memoryview]:
        yield from _cut(memoryview(self.content)[start:stop])


@dataclass(frozen=True, slots=True)
class GeneratedWav:
    """A WAV of `data_bytes` bytes of sound: speech made from `seed`, or silence where that is None.

    With the extra "list" there is a chunk of 100 KB before the sound, with "id3" a tag behind it that no size counts.
    """

    data_bytes: int
    seed: int | None
    riff_sizes: RiffSizes = "true"
    extra: Extra | None = None

    @property
    def size(self) -> int:
        return len(self._head) + self.data_bytes + len(self._tail)

    @property
    def etag(self) -> str:
        return _etag("generated", self.data_bytes, self.seed, self.riff_sizes, self.extra)

    @property
    def _head(self) -> bytes:
        return wav_header(self.data_bytes, self.riff_sizes, _list_chunk() if self.extra == "list" else b"")

    @property
    def _tail(self) -> bytes:
        return _ID3_TAG if self.extra == "id3" else b""

    def pieces(self, start: int, stop: int) -> Iterator[bytes | memoryview]:
        head = self._head
        yield from _cut(memoryview(head)[start:stop])
        block = memoryview(_silence() if self.seed is None else speech_block(self.seed))
        position, end = max(start - len(head), 0), min(stop - len(head), self.data_bytes)
        while position < end:
            offset = position % len(block)
            piece = block[offset : offset + min(CHUNK_BYTES, end - position)]
            yield piece
            position += len(piece)
        behind = len(head) + self.data_bytes
        yield from _cut(memoryview(self._tail)[max(start - behind, 0) : max(stop - behind, 0)])


@dataclass(frozen=True, slots=True)
class FileBody:
    """A file, its first bytes replaced by `head` (which may be empty). The file must not change while it is served."""

    path: Path
    size: int
    head: bytes = b""

    @property
    def etag(self) -> str:
        status = self.path.stat()
        return _etag("file", self.path, status.st_size, status.st_mtime_ns, self.head.hex())

    def pieces(self, start: int, stop: int) -> Iterator[bytes | memoryview]:
        if start < min(stop, len(self.head)):
            yield self.head[start:stop]
            start = min(stop, len(self.head))
        with self.path.open("rb") as file:
            file.seek(start)
            while start < stop and (piece := file.read(min(CHUNK_BYTES, stop - start))):
                yield piece
                start += len(piece)


def wav_header(data_bytes: int, riff_sizes: RiffSizes = "true", chunk: bytes = b"") -> bytes:
    """The bytes before the samples: 44, and `chunk` between them.

    "zero", "ffffffff" and "7ffff000" are what writers leave that could not seek back; with "riff_wrong" the size of the whole
    counts its own header, as some writers do; "wrong" promises twice the samples that follow.
    """
    riff, data = _sizes(data_bytes, HEADER_BYTES - 8 + len(chunk) + data_bytes, riff_sizes)
    bytes_a_second = SAMPLE_RATE * SAMPLE_BYTES
    form = struct.pack("<HHIIHH", 1, 1, SAMPLE_RATE, bytes_a_second, SAMPLE_BYTES, 8 * SAMPLE_BYTES)
    return struct.pack("<4sI4s4sI16s", b"RIFF", riff, b"WAVE", b"fmt ", 16, form) + chunk + struct.pack("<4sI", b"data", data)


def file_body(path: Path, riff_sizes: RiffSizes = "true") -> FileBody:
    """The WAV at `path`; byte for byte, unless `riff_sizes` asks for other sizes in its header.

    Raises ValueError where the sizes cannot be changed because the file is not a WAV.
    """
    size = path.stat().st_size
    if riff_sizes == "true":
        return FileBody(path, size)
    with path.open("rb") as file:
        head = bytearray(file.read(CHUNK_BYTES))
    data_at = _find_data(head)
    if data_at is None:
        raise ValueError(f"{path} is not a WAV file: it has no RIFF header with a data chunk")
    (data_bytes,) = struct.unpack_from("<I", head, data_at + 4)
    riff, data = _sizes(data_bytes, size - 8, riff_sizes)
    struct.pack_into("<I", head, 4, riff)
    struct.pack_into("<I", head, data_at + 4, data)
    return FileBody(path, size, bytes(head[: data_at + 8]))


def load_folder(folder: str | os.PathLike[str]) -> dict[str, Path]:
    """Every `*.wav` in `folder`, by name, sorted. Raises ValueError if there is none."""
    try:
        files = [path for path in Path(folder).iterdir() if path.suffix.lower() == ".wav" and path.is_file()]
    except OSError as error:
        raise ValueError(f"audio_dir {os.fspath(folder)!r} cannot be read: {error.strerror}") from error
    if not files:
        raise ValueError(f"audio_dir {os.fspath(folder)!r} holds no *.wav file")
    return {path.name: path for path in sorted(files)}


@lru_cache(maxsize=128)
def speech_block(seed: int) -> bytes:
    """Eight seconds of samples in the band of speech. Equal for equal seeds; else different from the start."""
    choice = random.Random(seed)  # noqa: S311 - reproducible on purpose
    stock = _syllables()
    block = b"".join(stock[choice.randrange(_SYLLABLES)] for _ in range(_BLOCK_SYLLABLES))
    # Short recordings would often share their few syllables: a faint hiss at the start tells them apart.
    mark = b"".join(struct.pack("<h", value - 128) for value in choice.randbytes(_MARK_BYTES // SAMPLE_BYTES))
    return mark + block[_MARK_BYTES:]


@lru_cache(maxsize=8)
def flac_of(data_bytes: int, seed: int | None) -> bytes:
    """The sound of the `GeneratedWav` of the same arguments as a FLAC file; in memory, so it should not be large."""
    wav = GeneratedWav(data_bytes, seed)
    return flac(b"".join(wav.pieces(HEADER_BYTES, wav.size)), SAMPLE_RATE)


@lru_cache(maxsize=1)
def _list_chunk() -> bytes:
    return struct.pack("<4sI4s", b"LIST", _LIST_BYTES, b"INFO").ljust(8 + _LIST_BYTES, b"\0")


@lru_cache(maxsize=1)
def _silence() -> bytes:
    return bytes(_BLOCK_SYLLABLES * _SYLLABLE_SAMPLES * SAMPLE_BYTES)


@lru_cache(maxsize=1)
def _syllables() -> tuple[bytes, ...]:
    """A voice (100-250 Hz) with two formants, fading in and out, so that joins don't click. Some are pauses."""
    choice = random.Random("syllables")  # noqa: S311 - reproducible on purpose
    envelope = [math.sin(math.pi * at / _SYLLABLE_SAMPLES) for at in range(_SYLLABLE_SAMPLES)]
    stock = [bytes(_SYLLABLE_SAMPLES * SAMPLE_BYTES)] * 4
    while len(stock) < _SYLLABLES:
        tones = [
            (2 * math.pi * hertz / SAMPLE_RATE, loudness)
            for hertz, loudness in (
                (choice.uniform(100, 250), 6000),
                (choice.uniform(300, 900), 4000),
                (choice.uniform(1000, 3000), 2000),
            )
        ]
        samples = array(
            "h",
            (int(e * sum(a * math.sin(w * at) for w, a in tones)) for at, e in enumerate(envelope)),
        )
        stock.append(struct.pack(f"<{len(samples)}h", *samples))
    return tuple(stock)


def _sizes(data_bytes: int, riff_bytes: int, riff_sizes: RiffSizes) -> tuple[int, int]:
    match riff_sizes:
        case "true":
            return riff_bytes, data_bytes
        case "zero":
            return 0, 0
        case "ffffffff":
            return 0xFFFFFFFF, 0xFFFFFFFF
        case "7ffff000":
            return 0x7FFFF024, 0x7FFFF000
        case "riff_wrong":
            return riff_bytes + 8, data_bytes
        case "wrong":
            more = max(data_bytes, 2)
            return min(riff_bytes + more, 0xFFFFFFFE), min(data_bytes + more, 0xFFFFFFFE)


def _find_data(head: bytes | bytearray) -> int | None:
    """Where the header of the data chunk begins; None if `head` is not the beginning of a WAV."""
    if len(head) < 12 or head[:4] != b"RIFF" or head[8:12] != b"WAVE":
        return None
    at = 12
    while at + 8 <= len(head):
        name, size = struct.unpack_from("<4sI", head, at)
        if name == b"data":
            return at
        at += 8 + size + size % 2
    return None


def _cut(content: memoryview) -> Iterator[memoryview]:
    for at in range(0, len(content), CHUNK_BYTES):
        yield content[at : at + CHUNK_BYTES]


def _etag(*facts: object) -> str:
    return f'"{hashlib.sha256(repr(facts).encode()).hexdigest()[:32]}"'
