"""A FLAC writer that compresses nothing: one channel, 16 bits, every subframe verbatim (RFC 9639)."""

from __future__ import annotations

import hashlib
import struct
import sys
from array import array

BLOCK_SAMPLES = 4096

_LAST_METADATA = 0x80
_SYNC_FIXED_BLOCKS = b"\xff\xf8"
_BLOCK_OF_4096, _BLOCK_OF_16_BITS = 0b1100, 0b0111
_RATES = {8000: 0b0100, 16000: 0b0101}
_MONO_OF_16_BITS = 0b0000_1000
_VERBATIM = b"\x02"


def flac(samples: bytes, sample_rate: int) -> bytes:
    """The FLAC file of `samples`: 16 bits each, little endian. Raises KeyError for a rate other than 8000 or 16000."""
    words = array("h", samples)
    if sys.byteorder == "little":
        words.byteswap()
    sound, rate = words.tobytes(), _RATES[sample_rate]
    blocks = range(0, len(sound), 2 * BLOCK_SAMPLES)
    frames = [_frame(number, sound[at : at + 2 * BLOCK_SAMPLES], rate) for number, at in enumerate(blocks)]
    sizes = [len(frame) for frame in frames] or [0]
    information = struct.pack(">HH", BLOCK_SAMPLES, BLOCK_SAMPLES) + min(sizes).to_bytes(3) + max(sizes).to_bytes(3)
    # 20 bits of the rate, 3 of the channels and 5 of the sample's bits (each less one), 36 of how many samples there are.
    information += (sample_rate << 44 | 0 << 41 | 15 << 36 | len(words)).to_bytes(8)
    information += hashlib.md5(samples, usedforsecurity=False).digest()
    return b"".join([b"fLaC", bytes([_LAST_METADATA]), len(information).to_bytes(3), information, *frames])


def _frame(number: int, sound: bytes, rate: int) -> bytes:
    """One block; `sound` is its samples, big endian."""
    samples = len(sound) // 2
    whole = samples == BLOCK_SAMPLES
    header = _SYNC_FIXED_BLOCKS + bytes([(_BLOCK_OF_4096 if whole else _BLOCK_OF_16_BITS) << 4 | rate, _MONO_OF_16_BITS])
    header += chr(number).encode("utf-8", "surrogatepass") + (b"" if whole else struct.pack(">H", samples - 1))
    frame = header + bytes([_crc8(header)]) + _VERBATIM + sound
    return frame + struct.pack(">H", _crc16(frame))


def _table(polynomial: int, bits: int) -> list[int]:
    top, mask, table = 1 << (bits - 1), (1 << bits) - 1, []
    for value in range(256):
        remainder = value << (bits - 8)
        for _ in range(8):
            remainder = (remainder << 1) ^ polynomial if remainder & top else remainder << 1
        table.append(remainder & mask)
    return table


_CRC8 = _table(0x07, 8)
_CRC16 = _table(0x8005, 16)


def _crc8(content: bytes) -> int:
    crc = 0
    for byte in content:
        crc = _CRC8[crc ^ byte]
    return crc


def _crc16(content: bytes) -> int:
    crc = 0
    for byte in content:
        crc = ((crc << 8) & 0xFFFF) ^ _CRC16[(crc >> 8) ^ byte]
    return crc
