"""What counts as a recording.

The field's best-known defect is an archive full of error pages that were logged as success. So a body is believed only if it
is not empty, is not a page or JSON in disguise, and, where it is a WAV, all the audio has come that its header names. Its
opposite is as bad: recordings that are refused for a header that no player minds. Where the transfer itself proves that a body is
whole, what writers of headers get wrong is a flag.
"""

from __future__ import annotations

import codecs
import re
import struct
from dataclasses import dataclass
from typing import Literal

from archiver.archive.excerpt import Excerpt
from archiver.archive.formats import Format, Sound, Wav
from archiver.archive.formats.known import name_differs
from archiver.archive.formats.mpeg import id3_length
from archiver.archive.formats.wav import WAV, wav_sound
from archiver.errors import RecordingRejected
from archiver.observe.redact import redact

_LONGEST_TYPE = 200
_ANY_TYPE = ("", "application/octet-stream", "binary/octet-stream")
_PLACEHOLDER = 0x7FFFF000
"""Writers of streams put this, a larger number or 0 where the size should be."""
_WIDE_PLACEHOLDER = 1 << 60

_PAGE = re.compile(rb"<(?:!doctype\s|html[\s>]|\?xml\s|error>)", re.IGNORECASE)


@dataclass(frozen=True)
class Inspection:
    """What a body turned out to be. `flags` is for auditors; the tables' documentation explains them."""

    media_type: str
    flags: tuple[str, ...] = ()
    seconds: float | None = None
    """How long the audio plays, by its header and the length that came; None where that doesn't tell."""
    sample_rate: int | None = None
    channels: int | None = None


def inspect(*, name: str, excerpt: Excerpt, content_type: str | None, whole: bool) -> Inspection:
    """Judge a body that has arrived by what is remembered of it and what was said of it. `whole`: the transfer proves that
    nothing is missing; else it may be that the connection was closed too early.

    Raises RecordingRejected with what was expected and the first bytes seen.
    """
    declared = (content_type or "").partition(";")[0].strip().lower()
    if excerpt.length == 0:
        raise RecordingRejected("the body is empty", reason="recording_empty", expected="audio", received=0)
    found = excerpt.finish()
    # Its own first bytes say more than what was said of it: a WAV may come as text/plain from a careless bucket.
    known, head = excerpt.format, bytes(excerpt.head)
    if isinstance(found, Wav):
        assert known is not None
        try:
            flags, heard = _inspect_wav(found, excerpt.length, whole)
        except ValueError as error:
            message = f"an incoherent WAV: {error}"
            raise _rejected(message, "recording_bad_wav", head, excerpt.length, declared) from None
        return _inspection(known.media_type, flags + _differences(known, name, declared), heard)
    tag = id3_length(head)
    if excerpt.length < tag or (excerpt.length == tag and not whole):
        message = f"a tag of {tag} bytes, and nothing proves that no audio was to come behind it"
        raise _rejected(message, "recording_truncated", head, excerpt.length, declared)
    # Behind the mark of a format, or behind a tag, a page is one still.
    disguised = _disguised(head[tag:]) if tag < len(head) else None
    # Of what is no WAV no header is asked how many bytes there are.
    unproven = () if whole else ("end_unproven",)
    if known is None or disguised is not None:
        return Inspection(_inspect_unknown(name, disguised, head, excerpt.length, declared), unproven)
    return _inspection(known.media_type, _differences(known, name, declared) + unproven, found)


def _inspection(media_type: str, flags: tuple[str, ...], heard: Sound) -> Inspection:
    return Inspection(media_type, flags, heard.seconds, heard.sample_rate, heard.channels)


def _differences(known: Format, name: str, declared: str) -> tuple[str, ...]:
    """Flags for what was said of a body and is not so."""
    flags = []
    if declared not in _ANY_TYPE and declared not in known.types:
        flags.append("type_differs")
    if name_differs(name, known):
        flags.append("name_differs")
    return tuple(flags)


def _inspect_unknown(name: str, disguised: str | None, head: bytes, length: int, declared: str) -> str:
    """The type of a body that no known format begins: no recording if it is text, nor if it is called a WAV."""
    if declared in ("text/html", "application/xhtml+xml", "application/xml", "text/xml") or disguised == "page":
        raise _rejected("a page instead of audio", "recording_is_page", head, length, declared)
    if declared.endswith("json") or disguised == "json":
        raise _rejected("JSON instead of audio", "recording_is_json", head, length, declared)
    if declared.startswith("text/") or disguised == "text":
        raise _rejected("text instead of audio", "recording_is_text", head, length, declared)
    if name.lower().endswith((".wav", ".wave")) or declared in WAV.types:
        raise _rejected("not a WAV, though it is called one", "recording_not_wav", head, length, declared)
    return redact(declared)[:_LONGEST_TYPE] or "application/octet-stream"


def _disguised(content: bytes) -> Literal["page", "json", "text"] | None:
    """What a body is that is no audio, by its first bytes; None: it may be audio."""
    if _PAGE.search(content, 0, 128):
        return "page"
    text = _as_text(content)
    match (text or content[:1024].removeprefix(codecs.BOM_UTF8).decode("latin-1")).lstrip()[:1]:
        case "<":
            return "page"
        case "{" | "[":
            return "json"
        case _:
            return "text" if text is not None else None


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


def _rejected(message: str, reason: str, head: bytes | bytearray, length: int, declared: str) -> RecordingRejected:
    return RecordingRejected(message, reason=reason, received=length, content_type=declared, first_bytes=first_bytes(head))


def _inspect_wav(wav: Wav, length: int, whole: bool) -> tuple[tuple[str, ...], Sound]:
    """Hold the sizes that a WAV's header names against the length that arrived. Returns flags, and what plays.

    Raises ValueError for a WAV that lacks something, or may.
    """
    outer_size, begin, size, placeholder = _wav_sizes(wav)
    flags = []
    # An empty `data` before other chunks is one; before anything else its size was never written.
    chunks_follow = wav.end > begin and 0 <= wav.end - length <= 1
    if (size >= placeholder and begin + size > length) or (size == 0 and length > begin and not chunks_follow):
        flags.append("streamed_wav")
        size = length - begin
    end, outer_end = begin + size, outer_size + 8
    if end > length:
        raise ValueError(f"its data chunk ends at byte {end}, {length} came")
    # Writers disagree on whether the byte that pads odd data counts, and on whether it is written.
    padding = size % 2
    outer_unknown = outer_size == 0 or (outer_size >= placeholder and outer_end > length)
    agrees = outer_unknown or outer_end - (padding if end == length else 0) <= length <= outer_end + 1
    if (flags or size == 0) and not outer_unknown and outer_end > length + 8:
        # Where the data's size was never written, the outer one alone tells what is missing; some write the file's size there.
        raise ValueError(f"its header says {outer_end} bytes, {length} came")
    if not whole and size == 0:
        raise ValueError("a header without audio, and nothing proves that no more was to come")
    if not whole and not agrees:
        raise ValueError(f"its header says {outer_end} bytes, {length} came, and nothing proves that these are all")
    if not flags:
        if outer_unknown:
            flags.append("streamed_wav")
        elif not agrees and not end <= outer_end <= length:
            flags.append("riff_size_wrong")
        if length > max(end + padding, 0 if outer_unknown else min(outer_end + 1, length)):
            flags.append("trailing_bytes")
    if size == 0:
        flags.append("no_audio")
    return tuple(flags), wav_sound(wav.fmt, size)


def _wav_sizes(wav: Wav) -> tuple[int, int, int, int]:
    """The size of the whole but for its first eight bytes, where the audio begins, its size, and from which number on a size is
    none. Raises ValueError where a WAV has none of that.
    """
    if wav.outer[8:] != b"WAVE":
        raise ValueError("no WAVE mark")
    if wav.data is None:
        raise ValueError("no data chunk")
    if len(wav.fmt) < 14:
        raise ValueError("no format chunk before the data")
    outer_size: int = struct.unpack_from("<I", wav.outer, 4)[0]
    begin, size = wav.data
    if wav.outer[:4] == b"RIFF":
        return outer_size, begin, size, _PLACEHOLDER
    if len(wav.ds64) < 16:
        raise ValueError("no 64-bit sizes")
    wide_outer_size, wide_size = struct.unpack_from("<QQ", wav.ds64)
    outer_size = wide_outer_size if outer_size == 0xFFFFFFFF else outer_size
    size = wide_size if size == 0xFFFFFFFF else size
    return outer_size, begin, size, _WIDE_PLACEHOLDER
