"""What counts as a recording, and under which name it may lie in the archive.

The field's best-known defect is an archive full of error pages that were logged as success. So a body is believed only if it
is not empty, is not a page or JSON in disguise, and, where it claims to be a WAV, has a header that agrees with its length.
"""

from __future__ import annotations

import re
import struct
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from pathvalidate import sanitize_filename

from archiver.errors import RecordingRejected

HEAD_BYTES = 64 * 1024
"""How much of a body `inspect` wants to see; the chunks before a WAV's data are far smaller."""

MAX_NAME_BYTES = 180
"""A cleaned file name is at most this long in UTF-8: below the 255 of file systems, with room for a marker."""

_STREAMED = (0, 0xFFFFFFFF)


@dataclass(frozen=True)
class Inspection:
    """What a body turned out to be. `flags` is for auditors: `streamed_wav` is a WAV whose header was never completed."""

    media_type: str
    flags: tuple[str, ...] = ()


def inspect(*, name: str, head: bytes, length: int, content_type: str | None) -> Inspection:
    """Judge a body that has wholly arrived by its first HEAD_BYTES, its length and what was said of it.

    Raises RecordingRejected with what was expected and the first bytes seen.
    """
    declared = (content_type or "").partition(";")[0].strip().lower()
    if length == 0:
        raise RecordingRejected("the body is empty", reason="recording_empty", expected="audio", received=0)
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    if declared in ("text/html", "application/xhtml+xml", "application/xml", "text/xml") or start == b"<":
        raise _rejected("a page instead of audio", "recording_is_page", head, length, declared)
    if declared.endswith("json") or start in (b"{", b"["):
        raise _rejected("JSON instead of audio", "recording_is_json", head, length, declared)
    if declared.startswith("text/"):
        raise _rejected("text instead of audio", "recording_is_text", head, length, declared)
    if head[:4] in (b"RIFF", b"RF64", b"BW64"):
        return Inspection("audio/wav", _wav_flags(head, length, declared))
    if name.lower().endswith((".wav", ".wave")) or declared in (
        "audio/wav",
        "audio/x-wav",
        "audio/wave",
        "audio/vnd.wave",
    ):
        raise _rejected("not a WAV, though it is called one", "recording_not_wav", head, length, declared)
    return Inspection(declared or "application/octet-stream")


def _rejected(message: str, reason: str, head: bytes, length: int, declared: str) -> RecordingRejected:
    return RecordingRejected(message, reason=reason, received=length, content_type=declared, first_bytes=repr(head[:64])[2:-1])


def _wav_flags(head: bytes, length: int, declared: str) -> tuple[str, ...]:
    """Hold the sizes that a WAV's header names against the length that arrived."""

    def incoherent(what: str) -> RecordingRejected:
        return _rejected(f"an incoherent WAV: {what}", "recording_bad_wav", head, length, declared)

    if head[8:12] != b"WAVE":
        raise incoherent("no WAVE mark")
    riff_size: int = struct.unpack_from("<I", head, 4)[0]
    sixty_four = head[:4] != b"RIFF"
    streamed = riff_size in _STREAMED and not sixty_four
    # One byte more or less: writers disagree on whether the last chunk's padding counts.
    if not streamed and not sixty_four and abs(riff_size + 8 - length) > 1:
        raise incoherent(f"its header says {riff_size + 8} bytes, {length} came")
    chunks = _chunks(head)
    if "data" not in chunks:
        raise incoherent("no data chunk in its first 64 KiB" if len(head) < length else "no data chunk")
    if chunks.get("fmt ", (0, 0))[1] < 14:
        raise incoherent("no format chunk before the data")
    position, size = chunks["data"]
    if sixty_four and size == 0xFFFFFFFF:
        if "ds64" not in chunks or chunks["ds64"][0] + 16 > len(head):
            raise incoherent("no 64-bit sizes")
        size = struct.unpack_from("<Q", head, chunks["ds64"][0] + 8)[0]
    elif size == 0xFFFFFFFF or (streamed and size == 0):
        streamed, size = True, length - position
    if size <= 0:
        raise incoherent("a header without audio")
    if position + size > length:
        raise incoherent(f"its data chunk ends at byte {position + size}, {length} came")
    return ("streamed_wav",) if streamed else ()


def _chunks(head: bytes) -> dict[str, tuple[int, int]]:
    """Where each chunk's content begins and how long it says it is, up to and with `data`."""
    found: dict[str, tuple[int, int]] = {}
    position = 12
    while position + 8 <= len(head) and "data" not in found:
        name, size = struct.unpack_from("<4sI", head, position)
        found.setdefault(name.decode("latin-1"), (position + 8, size))
        position += 8 + size + (size & 1)
    return found


def clean_file_name(given: str, taken: Iterable[str]) -> str:
    """A name that cannot leave its folder, is valid on every operating system, and differs from those in `taken`.

    Names are compared as a careless file system does: without case, in one Unicode form. Deterministic: the same answer of
    the platform gives the same names, so that a second run meets its own work. Never empty, never hidden.
    """
    name = unicodedata.normalize("NFC", given.encode("utf-8", "replace").decode("utf-8"))
    name = re.split(r"[/\\]", name)[-1]
    name = "".join("_" if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") else c for c in name)
    name = str(sanitize_filename(name, replacement_text="_", platform="universal", max_len=250))
    name = name.strip(" .").lstrip("~") or "recording"
    stem, dot, suffix = name.rpartition(".")
    if not dot or len(suffix) > 10:
        stem, dot, suffix = name, "", ""
    end = f"{dot}{suffix}"
    folded = {_fold(other) for other in taken}
    candidate = _cut(stem, MAX_NAME_BYTES - len(end.encode())) + end
    number = 1
    while _fold(candidate) in folded:
        number += 1
        mark = f"~{number}"
        candidate = _cut(stem, MAX_NAME_BYTES - len((mark + end).encode())) + mark + end
    return candidate


def _fold(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()


def _cut(text: str, size: int) -> str:
    """At most `size` bytes of UTF-8, never half a character."""
    return text.encode()[:size].decode("utf-8", "ignore").rstrip(" .") or "recording"
