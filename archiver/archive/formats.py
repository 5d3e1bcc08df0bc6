"""The audio formats that are known by their first bytes, and how long their headers say that they play.

A format's reader asks for the few bytes that tell, while the body passes: see `excerpt`. It never fails, whatever it reads, and
what it cannot tell is None. Sources: RIFF and EBU Tech 3306 (WAV, RF64), RFC 9639 (FLAC), RFC 3533, 7845 (Ogg, Opus), the Vorbis
and Speex manuals, ISO/IEC 11172-3, 13818-3 (MPEG audio), ISO/IEC 14496-12 (MP4), RFC 4867 (AMR), 9559 (Matroska), AIFF-C.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass

END = -1
"""In place of a position: the last bytes of the body."""

MAX_SECONDS = 30 * 86400
"""No call lasts as long: a header that says more is wrong."""

_FRAMES_BYTES = 16 * 1024
_PAGE_BYTES = 64 * 1024
"""An Ogg page is not larger."""
_TAGS_BYTES = 160
"""What the tags at the end of an MP3 can be told by: 128 bytes of ID3v1, and the footer of an APE tag before them."""


@dataclass(frozen=True)
class Wav:
    """What the chunks of a WAV say. `data` is where the audio begins and its size as written; None: no such chunk was found."""

    outer: bytes
    """RIFF, RF64 or BW64, the size of the whole, WAVE."""
    fmt: bytes
    ds64: bytes
    data: tuple[int, int] | None
    end: int
    """Where the chunks behind an empty `data` end, as far as they are chunks."""


Found = Wav | float | None
"""What a reader makes of a body: a WAV's chunks; of others, the seconds that they play."""

Reader = Generator[tuple[int, int], tuple[bytes, int], Found]
"""Yields the position and number of the bytes that it wants, each time behind those before, the `END` last of all. Is sent these
bytes, fewer only where the body ends, and how many have come by then; of the `END` perhaps more than it wants, and the length of
the whole.
"""


@dataclass(frozen=True)
class Format:
    """One format. A body may be declared as any of `types`, and its name may end in any of `suffixes`, without being called
    something else than it is. `read` makes its reader; the format begins at the position that it is given.
    """

    media_type: str
    types: frozenset[str]
    suffixes: frozenset[str]
    begins: Callable[[bytes], object]
    read: Callable[[int], Reader]


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


def plausible(seconds: float) -> float | None:
    """Seconds that a call can last, else None."""
    return seconds if 0 <= seconds <= MAX_SECONDS else None


# --- WAV


def _read_wav(start: int) -> Reader:
    outer, _ = yield start, 12
    chunks = {b"fmt ": b"", b"ds64": b""}
    at = start + 12
    while True:
        header, _ = yield at, 8
        if len(header) < 8:
            return Wav(outer, chunks[b"fmt "], chunks[b"ds64"], None, at)
        name, size = struct.unpack("<4sI", header)
        if name == b"data":
            break
        if chunks.get(name) == b"":
            chunks[name], _ = yield at + 8, min(size, 40)
        at += 8 + size + size % 2
    end = position = at + 8
    # No size: no audio, and perhaps other chunks, or audio of a length that was never written.
    while size == 0:
        header, _ = yield end, 8
        if len(header) < 8 or not re.match(rb"[ -~]{4}", header):
            break
        behind = int.from_bytes(header[4:], "little")
        end += 8 + behind + behind % 2
    return Wav(outer, chunks[b"fmt "], chunks[b"ds64"], (position, size), end)


def wav_seconds(fmt: bytes, size: int) -> float | None:
    """How long `size` bytes of audio play. Where each frame has a number, by the frames; of compressed audio the header says how
    many bytes play a second, if only roughly.
    """
    kind, _, rate, bytes_a_second, frame_bytes = struct.unpack_from("<HHIIH", fmt)
    if kind in (1, 3, 6, 7, 0xFFFE):
        bytes_a_second = rate * frame_bytes or bytes_a_second
    elif kind in (0x02, 0x11, 0x31) and len(fmt) >= 20:
        # ADPCM and GSM have blocks of so many samples. Of these, ffmpeg writes a wrong number of bytes a second.
        samples = int.from_bytes(fmt[18:20], "little")
        if samples and rate and frame_bytes:
            return plausible(size / frame_bytes * samples / rate)
    return plausible(size / bytes_a_second) if bytes_a_second else None


# --- FLAC, AU, AIFF, MP4


def _read_flac(start: int) -> Reader:
    info, _ = yield start + 8, 18
    return _flac_seconds(info)


def _flac_seconds(info: bytes) -> float | None:
    if len(info) < 18:
        return None
    fields = int.from_bytes(info[10:18], "big")
    rate, samples = fields >> 44, fields & (1 << 36) - 1
    return plausible(samples / rate) if rate and samples else None


_AU_SAMPLE_BYTES = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}


def _read_au(start: int) -> Reader:
    header, _ = yield start, 24
    _, length = yield END, 0
    if len(header) < 24:
        return None
    begin, size, encoding, rate, channels = struct.unpack(">5I", header[4:])
    bytes_a_second = _AU_SAMPLE_BYTES.get(encoding, 0) * rate * channels
    return plausible(min(size, max(length - start - begin, 0)) / bytes_a_second) if bytes_a_second else None


def _read_aiff(start: int) -> Reader:
    at = start + 12
    while True:
        header, _ = yield at, 8
        if len(header) < 8:
            return None
        name, size = struct.unpack(">4sI", header)
        if name == b"COMM":
            break
        at += 8 + size + size % 2
    common, _ = yield at + 8, 18
    if len(common) < 18:
        return None
    frames, _, exponent, mantissa = struct.unpack(">IHHQ", common[2:])
    # A rate is an 80-bit number: 1 Hz has the exponent 16383, a sign or a larger one than 32 bits is no rate.
    if not 0 <= exponent - 16383 < 32:
        return None
    rate = math.ldexp(mantissa, exponent - 16383 - 63)
    return plausible(frames / rate) if rate else None


def _read_mp4(start: int) -> Reader:
    at = start
    while True:
        header, _ = yield at, 8
        if len(header) < 8:
            return None
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
            return None
        at += size
    content, _ = yield at + inside, 32
    if len(content) < 32:
        return None
    scale, duration = struct.unpack(">IQ", content[20:32]) if content[0] == 1 else struct.unpack(">II", content[12:20])
    # Nothing: the file was written in fragments. All ones: not known.
    return plausible(duration / scale) if scale and duration and duration != 0xFFFFFFFF else None


# --- Ogg


def _read_ogg(start: int) -> Reader:
    page, _ = yield start, 4096
    tail, _ = yield END, _PAGE_BYTES + 1024
    if len(page) < 28:
        return None
    granules_a_second, before = _ogg_rate(page[27 + page[26] :])
    tail = tail[-_PAGE_BYTES - 1024 :]  # so that pieces of any size find the same
    last = tail.rfind(b"OggS")
    # Another number than the first page's: several streams, whose lengths the last page does not tell.
    if not granules_a_second or last < 0 or len(tail) < last + 27 or tail[last + 14 : last + 18] != page[14:18]:
        return None
    granule = int.from_bytes(tail[last + 6 : last + 14], "little", signed=True)
    return plausible(max(granule - before, 0) / granules_a_second) if granule >= 0 else None


def _ogg_rate(packet: bytes) -> tuple[int, int]:
    """What granules count: so many play a second, so many of the first are not heard. By the first packet; 0: not known."""
    if packet.startswith(b"\x01vorbis"):
        return int.from_bytes(packet[12:16], "little"), 0
    if packet.startswith(b"OpusHead"):
        return 48000, int.from_bytes(packet[10:12], "little")
    if packet.startswith(b"Speex   "):
        return int.from_bytes(packet[36:40], "little"), 0
    if packet.startswith(b"\x7fFLAC"):
        return int.from_bytes(packet[27:30], "big") >> 4, 0
    return 0, 0


# --- MPEG audio

_BITRATES = {  # kbit/s by version 1 or not, and layer
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_BITRATES[False, 3] = _BITRATES[False, 2]
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}  # by the version as it is written


@dataclass(frozen=True)
class _Frame:
    size: int
    samples: int
    rate: int
    bitrate: int
    tables: int
    """Where a Xing header stands in it."""


def _frame(data: bytes, at: int) -> _Frame | None:
    """The frame that begins there, if one does."""
    header = int.from_bytes(data[at : at + 4], "big")
    version, layer = header >> 19 & 3, 4 - (header >> 17 & 3)
    bitrate, rate, padding, mono = header >> 12 & 15, header >> 10 & 3, header >> 9 & 1, header >> 6 & 3 == 3
    if len(data) < at + 4 or header >> 21 != 0x7FF or version == 1 or layer == 4 or bitrate in (0, 15) or rate == 3:
        return None
    first = version == 3
    bits, hertz = 1000 * _BITRATES[first, layer][bitrate - 1], _RATES[version][rate]
    samples = 384 if layer == 1 else 1152 if first or layer == 2 else 576
    size = (12 * bits // hertz + padding) * 4 if layer == 1 else samples // 8 * bits // hertz + padding
    side = (17 if mono else 32) if first else (9 if mono else 17)
    return _Frame(size, samples, hertz, bits, at + 4 + side)


def _frames(data: bytes) -> tuple[list[_Frame], int]:
    """The frames of one stream that stand one behind another, and where they end or something else follows."""
    found: list[_Frame] = []
    at = 0
    while (frame := _frame(data, at)) and (not found or (frame.samples, frame.rate) == (found[0].samples, found[0].rate)):
        found.append(frame)
        at += frame.size
    return found, at


def _begins_with_frames(head: bytes) -> bool:
    """Two at least: one alone is eleven bits, which chance brings often enough."""
    return len(_frames(head[:_FRAMES_BYTES])[0]) >= 2


def id3_length(data: bytes) -> int:
    """How long the ID3v2 tag is with which a body begins; 0: it does not."""
    found = re.match(rb"ID3[\x02-\x04][\x00-\xfe]([\x00-\xff])([\x00-\x7f]{4})", data)
    if found is None:
        return 0
    size = 0
    for seven in found[2]:
        size = size << 7 | seven
    return size + (20 if found[1][0] & 0x10 else 10)


def _read_mpeg(start: int) -> Reader:
    data, _ = yield start, _FRAMES_BYTES
    frames, stop = _frames(data)
    tail, length = yield END, _TAGS_BYTES
    if not frames:
        return None
    first = frames[0]
    if count := _counted_frames(data, first):
        return plausible(count * first.samples / first.rate)
    audio = length - start - _end_tags(tail)
    # Where the frames stop before the audio does, or are not of one size, those that were seen say nothing of the others.
    if len({frame.bitrate for frame in frames}) > 1 or stop < min(len(data), audio) - 3:
        return None
    # Some writers pad frames to the bitrate, some do not: by what they are, not by what they should be.
    return plausible(audio / stop * len(frames) * first.samples / first.rate)


def _counted_frames(data: bytes, first: _Frame) -> int:
    """How many frames a table in the first one says that there are; 0: there is none."""
    at = first.tables
    if data[at : at + 4] in (b"Xing", b"Info") and data[at + 7 : at + 8] and data[at + 7] & 1:
        return int.from_bytes(data[at + 8 : at + 12], "big")
    if data[36:40] == b"VBRI":
        return int.from_bytes(data[50:54], "big")
    return 0


def _end_tags(tail: bytes) -> int:
    """How many bytes at the end are tags."""
    size = 128 if tail[-128:-125] == b"TAG" else 0
    footer = tail[: len(tail) - size][-32:]
    if footer.startswith(b"APETAGEX") and len(footer) == 32:
        has_header = footer[23] & 0x80
        size += int.from_bytes(footer[12:16], "little") + (32 if has_header else 0)
    return size


# --- those that tell no length here

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
    return None


def _types(*types: str) -> frozenset[str]:
    return frozenset(types)


MPEG = Format(
    "audio/mpeg",
    _types("audio/mpeg", "audio/mp3", "audio/x-mp3", "audio/x-mpeg", "audio/mpeg3", "audio/x-mpeg-3", "audio/mpg", "audio/x-mpg"),
    frozenset({"mp3", "mp2", "mpga"}),
    _begins_with_frames,
    _read_mpeg,
)

WAV = Format(
    "audio/wav",
    _types("audio/wav", "audio/x-wav", "audio/wave", "audio/vnd.wave", "audio/x-pn-wav"),
    frozenset({"wav", "wave", "bwf", "rf64"}),
    re.compile(rb"RIFF|RF64|BW64", re.DOTALL).match,
    _read_wav,
)

FORMATS = (
    WAV,
    Format(
        "audio/flac",
        _types("audio/flac", "audio/x-flac"),
        frozenset({"flac"}),
        re.compile(rb"fLaC[\x00\x80]\x00\x00\x22", re.DOTALL).match,
        _read_flac,
    ),
    Format(
        "audio/ogg",
        _types("audio/ogg", "audio/x-ogg", "audio/opus", "audio/vorbis", "audio/speex", "application/ogg", "video/ogg"),
        frozenset({"ogg", "oga", "opus", "spx"}),
        re.compile(rb"OggS\x00[\x00-\x07]", re.DOTALL).match,
        _read_ogg,
    ),
    Format(
        "audio/mp4",
        _types(
            "audio/mp4", "video/mp4", "application/mp4", "audio/m4a", "audio/x-m4a", "audio/3gpp", "video/3gpp", "video/quicktime"
        ),
        frozenset({"m4a", "mp4", "m4b", "3gp", "3gpp", "mov"}),
        re.compile(rb"\x00.{3}ftyp", re.DOTALL).match,
        _read_mp4,
    ),
    Format(
        "audio/amr",
        _types("audio/amr", "audio/amr-nb"),
        frozenset({"amr"}),
        lambda head: _begins_with_amr(head, b"#!AMR\n", _AMR_BYTES),
        _read_nothing,
    ),
    Format(
        "audio/amr-wb",
        _types("audio/amr-wb"),
        frozenset({"amr", "awb"}),
        lambda head: _begins_with_amr(head, b"#!AMR-WB\n", _AMR_WB_BYTES),
        _read_nothing,
    ),
    Format(
        "audio/webm",
        _types("audio/webm", "video/webm", "audio/matroska", "video/matroska", "audio/x-matroska", "video/x-matroska"),
        frozenset({"webm", "weba", "mka", "mkv"}),
        re.compile(rb"\x1a\x45\xdf\xa3", re.DOTALL).match,
        _read_nothing,
    ),
    Format(
        "audio/basic",
        _types("audio/basic", "audio/au", "audio/x-au"),
        frozenset({"au", "snd"}),
        re.compile(rb"\.snd\x00\x00.{6}\x00\x00\x00[\x01-\x1f]", re.DOTALL).match,
        _read_au,
    ),
    Format(
        "audio/aiff",
        _types("audio/aiff", "audio/x-aiff"),
        frozenset({"aif", "aiff", "aifc"}),
        re.compile(rb"FORM.{4}AIF[FC][ -~]{4}[\x00-\x08]", re.DOTALL).match,
        _read_aiff,
    ),
    MPEG,
)  # fmt: skip
