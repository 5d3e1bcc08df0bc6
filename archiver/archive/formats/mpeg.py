"""MPEG audio, as MP3 (ISO/IEC 11172-3, 13818-3), and the tags before and behind it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from archiver.archive.formats import END, Format, Reader, Sound, sound, types_of

_FRAMES_BYTES = 16 * 1024
_TAGS_BYTES = 160
"""What the tags at the end of an MP3 can be told by: 128 bytes of ID3v1, and the footer of an APE tag before them."""

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
    channels: int
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
    return _Frame(size, samples, hertz, bits, 1 if mono else 2, at + 4 + side)


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
        return Sound()
    first = frames[0]
    if count := _counted_frames(data, first):
        return sound(count * first.samples / first.rate, first.rate, first.channels)
    audio = length - start - _end_tags(tail)
    # Where the frames stop before the audio does, or are not of one size, those that were seen say nothing of the others.
    if len({frame.bitrate for frame in frames}) > 1 or stop < min(len(data), audio) - 3:
        return sound(None, first.rate, first.channels)
    # Some writers pad frames to the bitrate, some do not: by what they are, not by what they should be.
    return sound(audio / stop * len(frames) * first.samples / first.rate, first.rate, first.channels)


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


MPEG = Format(
    "audio/mpeg",
    types_of(
        "audio/mpeg", "audio/mp3", "audio/x-mp3", "audio/x-mpeg", "audio/mpeg3", "audio/x-mpeg-3", "audio/mpg", "audio/x-mpg"
    ),
    frozenset({"mp3", "mp2", "mpga"}),
    _begins_with_frames,
    _read_mpeg,
)
