"""What counts as a recording.

The field's best-known defect is an archive full of error pages that were logged as success. So a body is believed only if it
is not empty, is not a page or JSON in disguise, and, where it claims to be a WAV, has a header that agrees with its length.
"""

from __future__ import annotations

import codecs
import struct
from dataclasses import dataclass

from archiver.errors import RecordingRejected
from archiver.redact import redact

HEAD_BYTES = 64 * 1024
"""How much of a body `inspect` wants to see; the chunks before a WAV's data are far smaller."""

_LONGEST_TYPE = 200
_STREAMED = (0, 0xFFFFFFFF)
_WAV_TYPES = ("audio/wav", "audio/x-wav", "audio/wave", "audio/vnd.wave")


@dataclass(frozen=True)
class Inspection:
    """What a body turned out to be. `flags` is for auditors: `streamed_wav` is a WAV whose header was never completed."""

    media_type: str
    flags: tuple[str, ...] = ()
    seconds: float | None = None
    """How long the audio plays, by its header and the length that came; None where the format doesn't tell."""


def inspect(*, name: str, head: bytes, length: int, content_type: str | None) -> Inspection:
    """Judge a body that has wholly arrived by its first HEAD_BYTES, its length and what was said of it.

    Raises RecordingRejected with what was expected and the first bytes seen.
    """
    declared = (content_type or "").partition(";")[0].strip().lower()
    if length == 0:
        raise RecordingRejected("the body is empty", reason="recording_empty", expected="audio", received=0)
    # Its own header says more than what was said of it: a WAV may come as text/plain from a careless bucket.
    if head[:4] in (b"RIFF", b"RF64", b"BW64"):
        return _inspect_wav(head, length, declared)
    text = _as_text(head)
    start = (text or head.removeprefix(codecs.BOM_UTF8).decode("latin-1")).lstrip()[:1]
    if declared in ("text/html", "application/xhtml+xml", "application/xml", "text/xml") or start == "<":
        raise _rejected("a page instead of audio", "recording_is_page", head, length, declared)
    if declared.endswith("json") or start in ("{", "["):
        raise _rejected("JSON instead of audio", "recording_is_json", head, length, declared)
    if declared.startswith("text/") or text is not None:
        raise _rejected("text instead of audio", "recording_is_text", head, length, declared)
    if name.lower().endswith((".wav", ".wave")) or declared in _WAV_TYPES:
        raise _rejected("not a WAV, though it is called one", "recording_not_wav", head, length, declared)
    return Inspection(redact(declared)[:_LONGEST_TYPE] or "application/octet-stream")


def _as_text(head: bytes) -> str | None:
    """The first kilobyte, if it is nothing but text; no audio format begins like that."""
    encoding = "utf-16" if head.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        # Not final: the last character may be cut in two.
        text = codecs.getincrementaldecoder(encoding)().decode(head[:1024])
    except UnicodeDecodeError:
        return None
    return text if all(c.isprintable() or c.isspace() for c in text) else None


def first_bytes(head: bytes | bytearray) -> str:
    """The first 64 bytes of a body as evidence, spelled in ASCII, without secrets: those are looked for before it is cut."""
    spelled, shown = (repr(bytes(head[:size]))[2:-1] for size in (1024, 64))
    return redact(spelled)[: len(shown)]


def _rejected(message: str, reason: str, head: bytes, length: int, declared: str) -> RecordingRejected:
    return RecordingRejected(message, reason=reason, received=length, content_type=declared, first_bytes=first_bytes(head))


def _inspect_wav(head: bytes, length: int, declared: str) -> Inspection:
    """Hold the sizes that a WAV's header names against the length that arrived."""

    def incoherent(what: str) -> RecordingRejected:
        return _rejected(f"an incoherent WAV: {what}", "recording_bad_wav", head, length, declared)

    if head[8:12] != b"WAVE":
        raise incoherent("no WAVE mark")
    chunks = _chunks(head)
    if "data" not in chunks:
        raise incoherent("no data chunk in its first 64 KiB" if len(head) < length else "no data chunk")
    if chunks.get("fmt ", (0, 0))[1] < 14:
        raise incoherent("no format chunk before the data")
    riff_size: int = struct.unpack_from("<I", head, 4)[0]
    position, size = chunks["data"]
    if head[:4] != b"RIFF":
        at, ds64_size = chunks.get("ds64", (0, 0))
        if ds64_size < 16:
            raise incoherent("no 64-bit sizes")
        wide_riff_size, wide_size = struct.unpack_from("<QQ", head, at)
        riff_size = wide_riff_size if riff_size == 0xFFFFFFFF else riff_size
        size = wide_size if size == 0xFFFFFFFF else size
    streamed = riff_size in _STREAMED or size == 0xFFFFFFFF
    if size == 0xFFFFFFFF or (streamed and size == 0):
        size = length - position
    if size <= 0:
        raise incoherent("a header without audio")
    if position + size > length:
        raise incoherent(f"its data chunk ends at byte {position + size}, {length} came")
    # Writers disagree on whether the byte that pads odd data counts, and on whether it is written.
    padding = 1 if size % 2 and position + size == length else 0
    if riff_size not in _STREAMED and not riff_size + 8 - padding <= length <= riff_size + 9:
        raise incoherent(f"its header says {riff_size + 8} bytes, {length} came")
    # Of compressed audio, too, the header says how many bytes play a second, if only roughly.
    bytes_a_second: int = struct.unpack_from("<I", head, chunks["fmt "][0] + 8)[0]
    return Inspection("audio/wav", ("streamed_wav",) if streamed else (), size / bytes_a_second if bytes_a_second else None)


def _chunks(head: bytes) -> dict[str, tuple[int, int]]:
    """Where each chunk's content begins and how long it says it is, up to and with `data`."""
    found: dict[str, tuple[int, int]] = {}
    position = 12
    while position + 8 <= len(head) and "data" not in found:
        name, size = struct.unpack_from("<4sI", head, position)
        found.setdefault(name.decode("latin-1"), (position + 8, size))
        position += 8 + size + (size & 1)
    return found
