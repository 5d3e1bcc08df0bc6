"""WAV: RIFF, RF64 and BW64 (RIFF and EBU Tech 3306)."""

from __future__ import annotations

import re
import struct

from archiver.archive.formats import Format, Reader, Sound, Wav, sound, types_of


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


def wav_sound(fmt: bytes, size: int) -> Sound:
    """How long `size` bytes of audio play. Where each frame has a number, by the frames; of compressed audio the header says how
    many bytes play a second, if only roughly.
    """
    kind, channels, rate, bytes_a_second, frame_bytes = struct.unpack_from("<HHIIH", fmt)
    if kind in (1, 3, 6, 7, 0xFFFE):
        bytes_a_second = rate * frame_bytes or bytes_a_second
    elif kind in (0x02, 0x11, 0x31) and len(fmt) >= 20:
        # ADPCM and GSM have blocks of so many samples. Of these, ffmpeg writes a wrong number of bytes a second.
        samples = int.from_bytes(fmt[18:20], "little")
        if samples and rate and frame_bytes:
            return sound(size / frame_bytes * samples / rate, rate, channels)
    return sound(size / bytes_a_second if bytes_a_second else None if size else 0.0, rate, channels)


WAV = Format(
    "audio/wav",
    types_of("audio/wav", "audio/x-wav", "audio/wave", "audio/vnd.wave", "audio/x-pn-wav"),
    frozenset({"wav", "wave", "bwf", "rf64"}),
    re.compile(rb"RIFF|RF64|BW64", re.DOTALL).match,
    _read_wav,
)
