"""What an audio format is, for the program: its first bytes, its names, and a reader of how long it plays, and how.

A format's reader asks for the few bytes that tell, while the body passes: see `excerpt`. It never fails, whatever it reads, and
what it cannot tell is None. The formats themselves are in `known`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass

END = -1
"""In place of a position: the last bytes of the body."""

MAX_SECONDS = 30 * 86400
"""No call lasts as long: a header that says more is wrong."""

MAX_RATE = 10_000_000
"""No format means more samples a second, nor as many channels."""


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


@dataclass(frozen=True)
class Sound:
    """What a header says of the audio; None where it does not tell."""

    seconds: float | None = None
    sample_rate: int | None = None
    channels: int | None = None


def sound(seconds: float | None = None, sample_rate: int = 0, channels: int = 0) -> Sound:
    """What a header says, as far as a call can be so."""
    return Sound(None if seconds is None else plausible(seconds), _meant(sample_rate), _meant(channels))


def _meant(number: int) -> int | None:
    return number if 0 < number <= MAX_RATE else None


Found = Wav | Sound
"""What a reader makes of a body: a WAV's chunks; of others, what their header says."""

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


def plausible(seconds: float) -> float | None:
    """Seconds that a call can last, else None."""
    return seconds if 0 <= seconds <= MAX_SECONDS else None


def types_of(*types: str) -> frozenset[str]:
    """Media types, each as somebody declares it."""
    return frozenset(types)
