"""Small audio files of each format, right and wrong in the ways that writers get them wrong, made byte by byte.

`CASES` has them all, with what is to become of each.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator
from dataclasses import dataclass

MULAW = struct.pack("<HHIIHH", 7, 1, 8000, 8000, 1, 8)
PCM = struct.pack("<HHIIHH", 1, 1, 8000, 16000, 2, 16)
GSM = struct.pack("<HHIIHHHH", 0x31, 1, 8000, 1625, 65, 0, 2, 320)
ADPCM = struct.pack("<HHIIHHHH", 0x11, 1, 8000, 16000, 256, 4, 2, 505)
"""As ffmpeg writes it: the bytes a second are those of what was encoded."""
EXTENSIBLE = struct.pack(
    "<HHIIHHHHI16s", 0xFFFE, 1, 8000, 16000, 2, 16, 22, 16, 4, bytes.fromhex("0100000000001000800000aa00389b71")
)
SECOND = bytes(range(1, 201)) * 40
"""8000 bytes that look like nothing."""


# --- WAV


def chunk(name: bytes, content: bytes, size: int | None = None) -> bytes:
    return name + struct.pack("<I", len(content) if size is None else size) + content + bytes(len(content) % 2)


def wav(
    *chunks: bytes,
    audio: bytes = SECOND,
    behind: bytes = b"",
    riff: bytes = b"RIFF",
    riff_size: int | None = None,
    data_size: int | None = None,
) -> bytes:
    """A WAV: the chunks, its data, what lies behind; the sizes are true where none is given."""
    body = b"WAVE" + (b"".join(chunks) or chunk(b"fmt ", MULAW)) + chunk(b"data", audio, data_size) + behind
    return riff + struct.pack("<I", len(body) if riff_size is None else riff_size) + body


def rf64(
    audio: bytes = SECOND, *, behind: bytes = b"", mark: bytes = b"RF64", data_size: int | None = None, missing: int = 0
) -> bytes:
    rest = chunk(b"fmt ", MULAW) + chunk(b"data", audio, 0xFFFFFFFF) + behind
    size = 4 + 8 + 28 + len(rest)
    ds64 = chunk(b"ds64", struct.pack("<QQQI", size, len(audio) if data_size is None else data_size, 0, 0))
    return mark + b"\xff\xff\xff\xffWAVE" + ds64 + rest[: len(rest) - missing]


# --- FLAC


def streaminfo(samples: int, rate: int = 8000) -> bytes:
    return struct.pack(">HH6xQ16x", 4096, 4096, rate << 44 | 15 << 36 | samples)


def flac(samples: int = 16000, rate: int = 8000) -> bytes:
    return b"fLaC\x80\0\0\x22" + streaminfo(samples, rate) + b"\xff\xf8" + SECOND


# --- Ogg


def _crc(data: bytes) -> int:
    value = 0
    for byte in data:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1 ^ (0x04C11DB7 if value & 0x80000000 else 0)) & 0xFFFFFFFF
    return value


def page(content: bytes, granule: int, number: int, kind: int = 0, serial: int = 7) -> bytes:
    """One Ogg page with one packet."""
    segments = bytes([255] * (len(content) // 255) + [len(content) % 255])
    head = struct.pack("<4sBBqII", b"OggS", 0, kind, granule, serial, number)
    rest = bytes([len(segments)]) + segments + content
    return head + struct.pack("<I", _crc(head + bytes(4) + rest)) + rest


def ogg(*packets: bytes, last: int, content: bytes = b"\xf8\xff\xfe") -> bytes:
    """The header packets, and a last page that ends at granule `last`."""
    pages = [page(packet, 0, number, 2 if number == 0 else 0) for number, packet in enumerate(packets)]
    return b"".join(pages) + page(content, last, len(pages), 4)


VORBIS = b"\x01vorbis" + struct.pack("<IBIiiiB", 0, 1, 8000, 0, 16000, 0, 0xB8) + b"\x01"
OPUS = b"OpusHead" + struct.pack("<BBHIhB", 1, 1, 312, 8000, 0, 0)
OPUS_TAGS = b"OpusTags" + struct.pack("<I1sI", 1, b"x", 0)
SPEEX = b"Speex   " + b"1.2".ljust(20, b"\0") + struct.pack("<IIII", 1, 80, 8000, 0) + bytes(36)
OGG_FLAC = b"\x7fFLAC\x01\0\0\x01fLaC\0\0\0\x22" + streaminfo(16000)


def opus(packets: int = 100) -> bytes:
    """20 ms of silence a packet and page."""
    head = page(OPUS, 0, 0, 2) + page(OPUS_TAGS, 0, 1)
    return head + b"".join(page(b"\xf8\xff\xfe", 960 * (n + 1), n + 2, 4 if n == packets - 1 else 0) for n in range(packets))


# --- MPEG audio

FRAME = 0xFFFB10C4
"""Layer III, 32 kbit/s, 44.1 kHz, mono: 104 or 105 bytes, 1152 samples."""
SLOW_FRAME = 0xFFE318C4
"""The same of version 2.5, 8 kbit/s, 8 kHz: 72 bytes, 576 samples."""


def frame(header: int = FRAME, content: bytes = b"", size: int = 104) -> bytes:
    return (struct.pack(">I", header) + content).ljust(size, b"\0")


def table(frames: int, name: bytes = b"Xing") -> bytes:
    """A first frame that says how many there are."""
    return frame(content=bytes(17) + name + struct.pack(">II", 1, frames))


def vbri(frames: int) -> bytes:
    return frame(content=bytes(32) + b"VBRI" + struct.pack(">HHHII", 1, 0, 75, 104 * frames, frames))


def id3(size: int = 100, flags: int = 0) -> bytes:
    """A tag of `size` bytes behind its header."""
    seven = bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x03\0" + bytes([flags]) + seven + bytes(size) + (b"3DI\x03\0\x10" + seven if flags & 0x10 else b"")


ID3V1 = b"TAG" + bytes(125)


def ape() -> bytes:
    """An APE tag with header and footer, one empty item."""
    item = bytes(10)
    fields = struct.pack("<III", 2000, len(item) + 32, 1)
    return b"APETAGEX" + fields + struct.pack("<I8x", 0xA0000000) + item + b"APETAGEX" + fields + struct.pack("<I8x", 0x80000000)


# --- MP4, AMR, Matroska, AU, AIFF


def box(name: bytes, *content: bytes, wide: bool = False) -> bytes:
    inside = b"".join(content)
    if wide:
        return struct.pack(">I4sQ", 1, name, len(inside) + 16) + inside
    return struct.pack(">I4s", len(inside) + 8, name) + inside


FTYP = box(b"ftyp", b"M4A \0\0\0\0M4A isom")


def mvhd(duration: int, scale: int = 8000, version: int = 0) -> bytes:
    times = struct.pack(">QQIQ" if version else ">IIII", 0, 0, scale, duration)
    return box(b"mvhd", bytes([version, 0, 0, 0]), times, bytes(80))


def m4a(*boxes: bytes) -> bytes:
    return FTYP + b"".join(boxes)


AMR = b"#!AMR\n" + (b"\x3c" + bytes(31)) * 50
AMR_WB = b"#!AMR-WB\n" + (b"\x44" + bytes(60)) * 50
WEBM = bytes.fromhex("1a45dfa39f4286810142f7810142f2810442f381084282847765626d42878104428581021853806701ffffffffffffff") + bytes(
    64
)


def au(size: int | None = None, encoding: int = 1, audio: bytes = SECOND) -> bytes:
    return b".snd" + struct.pack(">IIIII", 28, len(audio) if size is None else size, encoding, 8000, 1) + b"made" + audio


def aiff(frames: int = 8000, *, kind: bytes = b"AIFF", before: bool = True, rate: bytes = b"\x40\x0b\xfa" + bytes(7)) -> bytes:
    def big(name: bytes, content: bytes) -> bytes:
        return name + struct.pack(">I", len(content)) + content + bytes(len(content) % 2)

    compression = b"ulaw\x05\xc2\xb5law" if kind == b"AIFC" else b""
    common = big(b"COMM", struct.pack(">HIH", 1, frames, 8) + rate + compression)
    sound = big(b"SSND", bytes(8) + SECOND)
    version = big(b"FVER", b"\xa2\x80\x51\x40") if kind == b"AIFC" else b""
    body = kind + version + (common + sound if before else sound + common)
    return b"FORM" + struct.pack(">I", len(body)) + body


# --- what is to become of each


@dataclass(frozen=True)
class Case:
    """One file, what is said of it, and what is to become of it: `refused` is a reason. `proven`: the transfer proves that it is
    whole. `sox`: whether sox can be asked how long it plays.
    """

    what: str
    body: bytes
    media_type: str = "audio/wav"
    flags: tuple[str, ...] = ()
    seconds: float | None = None
    refused: str | None = None
    name: str = "a.wav"
    declared: str | None = "audio/wav"
    proven: bool = True
    sox: bool = True


STREAMED, WRONG, TRAILING, NONE = ("streamed_wav",), ("riff_size_wrong",), ("trailing_bytes",), ("no_audio",)
FMT = chunk(b"fmt ", MULAW)
LIST = chunk(b"LIST", b"INFOISFT\x05\0\0\0odd.\0\0")
TRUE = len(wav()) - 8
BAD = "recording_bad_wav"


def _wavs() -> Iterator[Case]:
    yield Case("mu-law", wav(), seconds=1)
    yield Case("16-bit PCM", wav(chunk(b"fmt ", PCM)), seconds=0.5)
    yield Case("extensible", wav(chunk(b"fmt ", EXTENSIBLE)), seconds=0.5)
    yield Case("GSM 6.10", wav(chunk(b"fmt ", GSM), chunk(b"fact", struct.pack("<I", 8000)), audio=SECOND[:1625]), seconds=1)
    yield Case("IMA ADPCM", wav(chunk(b"fmt ", ADPCM), audio=SECOND[:2560]), seconds=10 * 505 / 8000)
    yield Case("odd data, padded", wav(audio=SECOND[:799]), seconds=799 / 8000)
    yield Case("odd data, padding counted, not written", wav(audio=SECOND[:799])[:-1], seconds=799 / 8000)
    odd = wav(audio=SECOND[:799])
    yield Case("odd data, padding not counted", odd[:4] + struct.pack("<I", len(odd) - 9) + odd[8:], seconds=799 / 8000)
    yield Case("LIST before", wav(LIST, FMT), seconds=1)
    yield Case("LIST behind", wav(behind=LIST), seconds=1)
    yield Case("bext of 603 bytes before", wav(chunk(b"bext", bytes(603)), FMT), seconds=1)
    yield Case("JUNK of 100 KB before", wav(chunk(b"JUNK", bytes(100_000)), FMT), seconds=1)
    yield Case("LIST of 300 KB between", wav(FMT, chunk(b"LIST", b"x" * 300_001)), seconds=1)
    yield Case("byte rate 0", wav(chunk(b"fmt ", struct.pack("<HHIIHH", 7, 1, 8000, 0, 1, 8))), seconds=1)
    yield Case("byte rate wrong", wav(chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, 8000, 8000, 2, 16))), seconds=0.5)
    yield Case("no rates at all", wav(chunk(b"fmt ", struct.pack("<HHIIHH", 7, 1, 0, 0, 1, 8))))
    for size in (0, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFF00, 0xFFFFFFFF):
        yield Case(f"both sizes {size:#x}", wav(riff_size=size, data_size=size), flags=STREAMED, seconds=1)
        yield Case(f"data size {size:#x}", wav(data_size=size), flags=STREAMED, seconds=1)
        yield Case(f"RIFF size {size:#x}", wav(riff_size=size), flags=STREAMED, seconds=1)
    yield Case("sizes of an empty file never completed", wav(riff_size=36, data_size=0), flags=STREAMED, seconds=1)
    yield Case("as sox streams", wav(riff_size=0x7FFFF024, data_size=0x7FFFF000), flags=STREAMED, seconds=1)
    yield Case("RIFF size is the data's", wav(riff_size=8000), flags=WRONG, seconds=1)
    yield Case("RIFF size is the file's", wav(riff_size=TRUE + 8), flags=WRONG, seconds=1)
    yield Case("RIFF size of an empty file", wav(riff_size=36), flags=WRONG, seconds=1)
    yield Case("RIFF size 12345678", wav(riff_size=12345678), flags=WRONG, seconds=1)
    yield Case("LIST behind, cut off", wav(behind=LIST)[:-10], flags=WRONG, seconds=1)
    yield Case("ID3 behind", wav() + id3(), flags=TRAILING, seconds=1)
    yield Case("APE behind", wav() + ape(), flags=TRAILING, seconds=1)
    yield Case("zeros behind", wav() + bytes(512), flags=TRAILING, seconds=1)
    yield Case("LIST behind, not counted", wav() + LIST, flags=TRAILING, seconds=1)
    yield Case("RIFF size wrong and LIST behind", wav(riff_size=36) + LIST, flags=WRONG + TRAILING, seconds=1)
    yield Case("RIFF size 0 and LIST behind", wav(riff_size=0) + LIST, flags=STREAMED + TRAILING, seconds=1)
    yield Case("no audio", wav(audio=b""), flags=NONE, seconds=0)
    yield Case("no audio, LIST behind", wav(audio=b"", behind=LIST), flags=NONE, seconds=0)
    yield Case(
        "no audio, both sizes 0xffffffff",
        wav(audio=b"", riff_size=2**32 - 1, data_size=2**32 - 1),
        flags=STREAMED + NONE,
        seconds=0,
    )
    yield Case("RF64", rf64(), seconds=1)
    yield Case("BW64, LIST behind", rf64(mark=b"BW64", behind=LIST), seconds=1)
    yield Case("RF64, no size", rf64(data_size=0), flags=STREAMED, seconds=1)
    yield Case("RF64, zeros behind", rf64() + bytes(9), flags=TRAILING, seconds=1)
    yield Case("RF64, size of all ones", rf64(data_size=2**64 - 1), flags=STREAMED, seconds=1)
    # What no transfer can prove to be right.
    yield Case("cut off", wav()[:-20], refused=BAD)
    yield Case("data size two too large", wav(data_size=8002), refused=BAD)
    yield Case("cut off, data size 0", wav(data_size=0)[:-20], refused=BAD)
    yield Case("cut off, data size 0xffffffff", wav(data_size=0xFFFFFFFF)[:4000], refused=BAD)
    yield Case("cut off behind its header, data size 0", wav(data_size=0)[:44], refused=BAD)
    yield Case("cut off, RIFF size 0", wav(riff_size=0)[:-20], refused=BAD)
    yield Case("data size of 2 GB less 5 KB, 8000 bytes came", wav(data_size=0x7FFFEFFF), refused=BAD)
    yield Case("RF64 of 5 GB, 8000 bytes came", rf64(data_size=5 * 2**30), refused=BAD)
    yield Case("RF64 cut off", rf64(missing=2), refused=BAD)
    yield Case("no data chunk", b"RIFF" + struct.pack("<I", 4 + len(FMT)) + b"WAVE" + FMT, refused=BAD)
    yield Case("no fmt chunk", wav(LIST), refused=BAD)
    yield Case("fmt of 12 bytes", wav(chunk(b"fmt ", MULAW[:12])), refused=BAD)
    yield Case("an AVI", b"RIFF\x04\0\0\0AVI ", refused=BAD)
    yield Case("RF64 without its sizes", wav(FMT, riff=b"RF64", riff_size=2**32 - 1, data_size=2**32 - 1), refused=BAD)
    yield Case("2000 empty chunks", wav(*[chunk(b"JUNK", b"")] * 2000, FMT), refused=BAD)
    # A connection that was closed proves nothing: the header has to.
    for case, more in (("RIFF size wrong", {"riff_size": 36}), ("no audio", {"audio": b""})):
        yield Case(f"{case}, closed connection", wav(**more), refused=BAD, proven=False)
    yield Case("ID3 behind, closed connection", wav() + id3(), refused=BAD, proven=False)
    yield Case("sizes of an empty file, closed connection", wav(riff_size=36, data_size=0), refused=BAD, proven=False)
    yield Case("mu-law, closed connection", wav(), seconds=1, proven=False)
    yield Case(
        "both sizes 0xffffffff, closed connection",
        wav(riff_size=2**32 - 1, data_size=2**32 - 1),
        flags=STREAMED,
        seconds=1,
        proven=False,
    )


def _flacs() -> Iterator[Case]:
    for what, seconds, body in (
        ("FLAC", 2, flac()),
        ("FLAC of unknown length", None, flac(0)),
        ("FLAC without a rate", None, flac(rate=0)),
        ("FLAC behind an ID3 tag", 2, id3() + flac()),
    ):
        yield Case(what, body, "audio/flac", seconds=seconds, name="a.flac", declared="audio/x-flac")
    yield Case(
        "FLAC, closed connection", flac(), "audio/flac", ("end_unproven",), 2, name="a.flac", declared="audio/flac", proven=False
    )
    yield Case("FLAC, called a WAV", flac(), "audio/flac", ("type_differs", "name_differs"), 2)
    yield Case("FLAC, declared octets, called a WAV", flac(), "audio/flac", ("name_differs",), 2, declared="binary/octet-stream")
    yield Case("FLAC, declared text", flac(), "audio/flac", ("type_differs",), 2, name="a", declared="text/html; charset=x")
    yield Case("FLAC, damaged mark, called a WAV", b"fLaC\x05" + flac()[5:], refused="recording_not_wav")


def _oggs() -> Iterator[Case]:
    long = page(b"x" * 60_000, -1, 9)
    for what, seconds, body in (
        ("Ogg Opus", (960 * 100 - 312) / 48000, opus()),
        ("Ogg Vorbis", 2, ogg(VORBIS, last=16000)),
        ("Ogg Speex", 2, ogg(SPEEX, last=16000)),
        ("Ogg FLAC", 2, ogg(OGG_FLAC, last=16000)),
        ("Ogg Vorbis of 300 KB", 2, page(VORBIS, 0, 0, 2) + long * 5 + page(b"x", 16000, 99, 4)),
        ("Ogg Vorbis, last page of 64 KB", 2, page(VORBIS, 0, 0, 2) + page(b"x" * 65_000, 16000, 1, 4)),
        ("Ogg Vorbis, another stream last", None, ogg(VORBIS, last=16000) + page(VORBIS, 8000, 0, 4, serial=8)),
        ("Ogg Vorbis, no end of a packet last", None, ogg(VORBIS, last=16000) + long),
        ("Ogg Vorbis, cut off in a page's head", None, ogg(VORBIS, last=16000)[:-20]),
        ("Ogg of something else", None, ogg(b"\x80theora", last=16000)),
        ("Ogg without a rate", None, ogg(VORBIS[:12] + bytes(4) + VORBIS[16:], last=16000)),
    ):
        yield Case(what, body, "audio/ogg", seconds=seconds, name="a.opus", declared="audio/ogg; codecs=opus")
    yield Case(
        "Ogg, called an MP3", opus(), "audio/ogg", ("type_differs", "name_differs"), 1.9935, name="a.MP3", declared="audio/mpeg"
    )


def _mp3s() -> Iterator[Case]:
    frames = frame() * 100
    second = 100 * 1152 / 44100
    yield from (
        Case(what, body, "audio/mpeg", seconds=seconds, name="a.mp3", declared="audio/mp3")
        for what, seconds, body in (
            ("MP3", second, frames),
            ("MP3, 8 kHz", 100 * 576 / 8000, frame(SLOW_FRAME, size=72) * 100),
            ("MP3, ID3 tags at both ends", second, id3() + frames + ID3V1),
            ("MP3, ID3 tag of 100 KB", second, id3(100_000) + frames),
            ("MP3, ID3 tag with a footer", second, id3(flags=0x10) + frames),
            ("MP3, APE and ID3 at its end", second, frames + ape() + ID3V1),
            ("MP3 with a Xing table", 1000 * 1152 / 44100, table(1000) + frames),
            ("MP3 with an Info table behind ID3", 100 * 1152 / 44100, id3() + table(100, b"Info") + frames),
            ("MP3 with an empty Xing table", second * 1.01, table(0) + frames),
            ("MP3 of two bitrates", None, (frame() + frame(0xFFFB20C4, size=130)) * 50),
            ("MP3 with a gap", None, frames + bytes(5) + frames),
            ("MP3, nothing but an ID3 tag", None, id3()),
        )
    )  # fmt: skip
    yield Case(
        "MP3 with a VBRI table", vbri(1000) + frames, "audio/mpeg", seconds=10 * second, name="a.mp3", declared=None, sox=False
    )
    yield Case("MP3, called a WAV", frames, "audio/mpeg", ("type_differs", "name_differs"), second)
    yield Case("MP3 of one frame, called a WAV", frame(), refused="recording_not_wav")
    yield Case("one frame's mark in noise", b"\xff\xfb\x10\xc4" + SECOND, "x/noise", name="a.bin", declared="x/noise")


def _others() -> Iterator[Case]:
    mdat = box(b"mdat", bytes(200_000))
    for what, seconds, body in (
        ("M4A", 2, m4a(box(b"moov", mvhd(16000)), mdat)),
        ("M4A, moov behind the audio", 2, m4a(mdat, box(b"moov", mvhd(16000)))),
        ("M4A, 64-bit sizes and times", 2, m4a(box(b"mdat", bytes(100), wide=True), box(b"moov", mvhd(16000, version=1)))),
        ("M4A in fragments", None, m4a(box(b"moov", mvhd(0)), mdat)),
        ("M4A of unknown length", None, m4a(box(b"moov", mvhd(0xFFFFFFFF)), mdat)),
        ("M4A without a scale", None, m4a(box(b"moov", mvhd(16000, 0)), mdat)),
        ("M4A without moov", None, m4a(mdat)),
        ("M4A of ten years", None, m4a(box(b"moov", mvhd(315_360_000, 1)), mdat)),
        ("M4A with a box without a size", None, m4a(b"\0\0\0\0mdat" + bytes(100))),
    ):
        yield Case(what, body, "audio/mp4", seconds=seconds, name="a.m4a", declared="video/mp4")
    yield Case("M4A, called a WAV", m4a(box(b"moov", mvhd(16000))), "audio/mp4", ("type_differs", "name_differs"), 2)
    yield Case("AMR", AMR, "audio/amr", name="a.amr", declared="audio/AMR")
    yield Case("AMR-WB", AMR_WB, "audio/amr-wb", name="a.awb", declared="audio/amr-wb")
    yield Case("AMR's mark and text", b"#!AMR\necho", refused="recording_is_text", name="a.amr", declared="audio/amr", sox=False)
    yield Case("WebM", WEBM, "audio/webm", name="a.webm", declared="audio/webm;codecs=opus")
    yield Case("WebM, called a WAV", WEBM, "audio/webm", ("type_differs", "name_differs"))
    yield Case("AU", au(), "audio/basic", seconds=1, name="a.au", declared="audio/basic")
    yield Case("AU, 16 bits", au(encoding=3), "audio/basic", seconds=0.5, name="a.au", declared="audio/basic")
    yield Case("AU, size not known", au(0xFFFFFFFF), "audio/basic", seconds=1, name="a.au", declared="audio/x-au")
    yield Case("AU, ADPCM", au(encoding=23), "audio/basic", name="a.snd", declared="")
    yield Case("AIFF", aiff(), "audio/aiff", seconds=1, name="a.aif", declared="audio/x-aiff")
    yield Case(
        "AIFC, COMM behind the audio", aiff(kind=b"AIFC", before=False), "audio/aiff", seconds=1, name="a.aifc", declared=None
    )
    # sox does not come to an end with these.
    yield Case("AIFF without a rate", aiff(rate=bytes(10)), "audio/aiff", name="a.aiff", declared=None, sox=False)
    yield Case(
        "AIFF of an endless rate", aiff(rate=b"\x7f\xff" + b"\xff" * 8), "audio/aiff", name="a.aiff", declared=None, sox=False
    )
    yield Case("a page", b"<html>no such file</html>", refused="recording_is_page")
    yield Case("JSON", b'{"error": "x"}', refused="recording_is_json", name="a.mp3", declared="audio/mpeg")
    yield Case("XML", b"<?xml version='1.0'?><Error/>", refused="recording_is_page", name="a.flac", declared="audio/flac")
    yield Case("nothing", b"", refused="recording_empty", name="a.flac", declared="audio/flac")
    yield Case("noise", SECOND, "audio/aac", name="a.aac", declared="audio/aac")
    yield Case("noise, called a WAV", SECOND, refused="recording_not_wav", name="a", declared="audio/wav")


CASES = list(itertools.chain(_wavs(), _flacs(), _oggs(), _mp3s(), _others()))
