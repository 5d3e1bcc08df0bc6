"""The audio formats that are known by their first bytes, and how long their headers say that they play.

Sources: RFC 9639 (FLAC), RFC 3533, 7845 (Ogg, Opus), the Vorbis and Speex manuals, ISO/IEC 14496-12 (MP4), RFC 4867 (AMR), 9559
(Matroska), AIFF-C; those of WAV and MPEG stand in their modules.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping

from archiver.archive.formats import END, Format, Reader, Sound, sound, types_of
from archiver.archive.formats.mpeg import MPEG, id3_length
from archiver.archive.formats.wav import WAV

_PAGE_BYTES = 64 * 1024
"""An Ogg page is not larger."""


def _read_flac(start: int) -> Reader:
    info, _ = yield start + 8, 18
    if len(info) < 18:
        return Sound()
    rate, channels, samples = _stream_info(info)
    return sound(samples / rate if rate and samples else None, rate, channels)


def _stream_info(info: bytes) -> tuple[int, int, int]:
    """Samples a second, channels, samples."""
    fields = int.from_bytes(info[10:18], "big")
    return fields >> 44, (fields >> 41 & 7) + 1, fields & (1 << 36) - 1


_AU_SAMPLE_BYTES = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}


def _read_au(start: int) -> Reader:
    header, _ = yield start, 24
    _, length = yield END, 0
    if len(header) < 24:
        return Sound()
    begin, size, encoding, rate, channels = struct.unpack(">5I", header[4:])
    bytes_a_second = _AU_SAMPLE_BYTES.get(encoding, 0) * rate * channels
    seconds = min(size, max(length - start - begin, 0)) / bytes_a_second if bytes_a_second else None
    return sound(seconds, rate, channels)


def _read_aiff(start: int) -> Reader:
    at = start + 12
    while True:
        header, _ = yield at, 8
        if len(header) < 8:
            return Sound()
        name, size = struct.unpack(">4sI", header)
        if name == b"COMM":
            break
        at += 8 + size + size % 2
    common, _ = yield at + 8, 18
    if len(common) < 18:
        return Sound()
    channels, frames, _, exponent, mantissa = struct.unpack(">HIHHQ", common)
    # A rate is an 80-bit number: 1 Hz has the exponent 16383, a sign or a larger one than 32 bits is no rate.
    rate = math.ldexp(mantissa, exponent - 16383 - 63) if 0 <= exponent - 16383 < 32 else 0
    return sound(frames / rate if rate else None, round(rate), channels)


def _read_mp4(start: int) -> Reader:
    at = start
    while True:
        header, _ = yield at, 8
        if len(header) < 8:
            return Sound()
        size, name = struct.unpack(">I4s", header)
        inside = 8
        if size == 1:
            wide, _ = yield at + 8, 8
            size, inside = int.from_bytes(wide, "big"), 16
        if name == b"mvhd":
            break
        if name == b"moov":
            size = inside
        elif size < inside:  # among them 0: this one goes on to the end
            return Sound()
        at += size
    content, _ = yield at + inside, 32
    if len(content) < 32:
        return Sound()
    scale, duration = struct.unpack(">IQ", content[20:32]) if content[0] == 1 else struct.unpack(">II", content[12:20])
    # Nothing: the file was written in fragments. All ones: not known.
    return sound(duration / scale if scale and duration and duration != 0xFFFFFFFF else None)


# --- Ogg


def _read_ogg(start: int) -> Reader:
    page, _ = yield start, 4096
    tail, _ = yield END, _PAGE_BYTES + 1024
    if len(page) < 28:
        return Sound()
    granules_a_second, channels, before = _ogg_rate(page[27 + page[26] :])
    unmeasured = sound(None, granules_a_second, channels)
    tail = tail[-_PAGE_BYTES - 1024 :]  # so that pieces of any size find the same
    last = tail.rfind(b"OggS")
    # Another number than the first page's: several streams, whose lengths the last page does not tell.
    if not granules_a_second or last < 0 or len(tail) < last + 27 or tail[last + 14 : last + 18] != page[14:18]:
        return unmeasured
    granule = int.from_bytes(tail[last + 6 : last + 14], "little", signed=True)
    return sound(max(granule - before, 0) / granules_a_second, granules_a_second, channels) if granule >= 0 else unmeasured


def _ogg_rate(packet: bytes) -> tuple[int, int, int]:
    """What granules count, which is samples: so many play a second, in so many channels, so many of the first are not heard. By
    the first packet; 0: not known.
    """
    if packet.startswith(b"\x01vorbis"):
        return int.from_bytes(packet[12:16], "little"), int.from_bytes(packet[11:12]), 0
    if packet.startswith(b"OpusHead"):
        return 48000, int.from_bytes(packet[9:10]), int.from_bytes(packet[10:12], "little")
    if packet.startswith(b"Speex   "):
        return int.from_bytes(packet[36:40], "little"), int.from_bytes(packet[48:52], "little"), 0
    if packet.startswith(b"\x7fFLAC") and len(packet) >= 35:
        rate, channels, _ = _stream_info(packet[17:35])
        return rate, channels, 0
    return 0, 0, 0


# --- MPEG audio

_AMR_BYTES = {0: 13, 1: 14, 2: 16, 3: 18, 4: 20, 5: 21, 6: 27, 7: 32, 8: 6, 15: 1}
_AMR_WB_BYTES = {0: 18, 1: 24, 2: 33, 3: 37, 4: 41, 5: 47, 6: 51, 7: 59, 8: 61, 9: 6, 14: 1, 15: 1}
_AMR_FRAMES = 16


def _begins_with_amr(head: bytes, mark: bytes, frame_bytes: Mapping[int, int]) -> bool:
    """The mark is text, and so may one frame's first byte be: as many as can be seen have to be frames."""
    at = len(mark)
    if not head.startswith(mark) or len(head) == at:
        return False
    for _ in range(_AMR_FRAMES):
        if at >= len(head):
            break
        kind = head[at] >> 3 & 15
        if head[at] & 0x83 or kind not in frame_bytes:
            return False
        at += frame_bytes[kind]
    return True


def _read_nothing(start: int) -> Reader:
    yield start, 0
    return Sound()


FORMATS = (
    WAV,
    Format(
        "audio/flac",
        types_of("audio/flac", "audio/x-flac"),
        frozenset({"flac"}),
        re.compile(rb"fLaC[\x00\x80]\x00\x00\x22", re.DOTALL).match,
        _read_flac,
    ),
    Format(
        "audio/ogg",
        types_of("audio/ogg", "audio/x-ogg", "audio/opus", "audio/vorbis", "audio/speex", "application/ogg", "video/ogg"),
        frozenset({"ogg", "oga", "opus", "spx"}),
        re.compile(rb"OggS\x00[\x00-\x07]", re.DOTALL).match,
        _read_ogg,
    ),
    Format(
        "audio/mp4",
        types_of(
            "audio/mp4", "video/mp4", "application/mp4", "audio/m4a", "audio/x-m4a", "audio/3gpp", "video/3gpp", "video/quicktime"
        ),
        frozenset({"m4a", "mp4", "m4b", "3gp", "3gpp", "mov"}),
        re.compile(rb"\x00.{3}ftyp", re.DOTALL).match,
        _read_mp4,
    ),
    Format(
        "audio/amr",
        types_of("audio/amr", "audio/amr-nb"),
        frozenset({"amr"}),
        lambda head: _begins_with_amr(head, b"#!AMR\n", _AMR_BYTES),
        _read_nothing,
    ),
    Format(
        "audio/amr-wb",
        types_of("audio/amr-wb"),
        frozenset({"amr", "awb"}),
        lambda head: _begins_with_amr(head, b"#!AMR-WB\n", _AMR_WB_BYTES),
        _read_nothing,
    ),
    Format(
        "audio/webm",
        types_of("audio/webm", "video/webm", "audio/matroska", "video/matroska", "audio/x-matroska", "video/x-matroska"),
        frozenset({"webm", "weba", "mka", "mkv"}),
        re.compile(rb"\x1a\x45\xdf\xa3", re.DOTALL).match,
        _read_nothing,
    ),
    Format(
        "audio/basic",
        types_of("audio/basic", "audio/au", "audio/x-au"),
        frozenset({"au", "snd"}),
        re.compile(rb"\.snd\x00\x00.{6}\x00\x00\x00[\x01-\x1f]", re.DOTALL).match,
        _read_au,
    ),
    Format(
        "audio/aiff",
        types_of("audio/aiff", "audio/x-aiff"),
        frozenset({"aif", "aiff", "aifc"}),
        re.compile(rb"FORM.{4}AIF[FC][ -~]{4}[\x00-\x08]", re.DOTALL).match,
        _read_aiff,
    ),
    MPEG,
)  # fmt: skip


def recognise(head: bytes) -> tuple[Format, int] | None:
    """The format that a body's first bytes show, and where it begins: an ID3 tag may stand before it."""
    start = id3_length(head)
    content = head[start:]
    for known in FORMATS:
        if known.begins(content):
            return known, start
    # A tag whose end has not been seen, or before what is damaged: nothing else but an MP3 has one.
    return (MPEG, start) if start else None


def name_differs(name: str, known: Format) -> bool:
    """Whether a name ends like one of another format."""
    _, dot, suffix = name.lower().rpartition(".")
    return bool(dot) and suffix not in known.suffixes and any(suffix in other.suffixes for other in FORMATS)
