"""Scripted sessions as they run: where each timeline stands, which faults are left, where the bytes are from."""

from __future__ import annotations

import hashlib
import time
import uuid
from base64 import b64decode
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import quote

from archiver.simulator.answers import StatusAnswer
from archiver.simulator.audio import (
    HEADER_BYTES,
    SAMPLE_BYTES,
    SAMPLE_RATE,
    Body,
    GeneratedWav,
    RawBody,
    file_body,
    flac_of,
    sha256_of,
)
from archiver.simulator.faults import Expired, Redirect
from archiver.simulator.script import Audio

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from archiver.simulator.answers import AnyAnswer
    from archiver.simulator.faults import AnyFault
    from archiver.simulator.script import RecordingScript, SessionScript

DEFAULT_SECONDS = 2.0

_IDS = uuid.UUID("6f2d3a0c-5a0e-4c58-9d0e-3d6f3f0a7c11")


class Timeline:
    """The steps of a session's answers. `ask` is one ask, and returns the step that answers it.

    `until` are statuses that come before the first step, each with the instant by `clock` at which it is over; None: never begun.
    """

    def __init__(
        self,
        steps: Sequence[AnyAnswer],
        clock: Callable[[], float] = time.monotonic,
        *,
        until: Sequence[tuple[float | None, str]] = (),
    ) -> None:
        self._steps = steps
        self._clock = clock
        self._until = [(over, StatusAnswer(status=status)) for over, status in until if over is not None]
        self._at = 0
        self._asks = 0
        self._since = 0.0

    def ask(self) -> AnyAnswer:
        now = self._clock()
        for over, answer in self._until:
            if now < over:
                return answer
        while self._at < len(self._steps) - 1 and self._is_over(now):
            self._at += 1
            self._asks = 0
        if self._asks == 0:
            self._since = now
        self._asks += 1
        return self._steps[self._at]

    def _is_over(self, now: float) -> bool:
        step = self._steps[self._at]
        if step.for_seconds is not None:
            return self._asks > 0 and now - self._since >= step.for_seconds
        return self._asks >= (step.times or 1)


class Faults:
    """Faults of one kind of request, used up in order."""

    def __init__(self, faults: Sequence[AnyFault]) -> None:
        self._left: list[tuple[AnyFault, float]] = [(fault, fault.times or float("inf")) for fault in faults]

    def take(self, *, redirects: bool = True) -> AnyFault | None:
        """The fault that meets this request. Without `redirects` the redirects in the list wait for another request."""
        for place, (fault, times) in enumerate(self._left):
            if redirects or not isinstance(fault, Redirect):
                if times > 1:
                    self._left[place] = (fault, times - 1)
                else:
                    del self._left[place]
                return fault
        return None


class Recording:
    """One recording of a session. Raises ValueError if its audio cannot be had."""

    def __init__(
        self, script: RecordingScript, *, session_id: str, ordinal: int, turn: int, bot_id: str, folder: dict[str, Path]
    ) -> None:
        identity = f"{session_id}/{ordinal}"
        self.body = _body(script, identity, turn, folder)
        self.content_type = script.content_type
        self.resumable = script.resumable
        self.url = script.url
        self.file_name = script.file_name
        if self.file_name is None:
            self.file_name = f"{uuid.uuid5(_IDS, identity).hex}-merged.wav"
        self.url_faults = Faults([fault for fault in script.faults if isinstance(fault, Expired)])
        self.faults = Faults([fault for fault in script.faults if not isinstance(fault, Expired)])
        self._sha256: str | None = None

        day = datetime.now(UTC)
        where = f"o-{_IDS}/{quote(bot_id, safe='')}/{day:%Y}/{day:%d-%m-%Y}/f-{uuid.uuid5(_IDS, 'file ' + identity)}.wav"
        self.path = f"/api/getMediaStream/smartassistrecording/UAT/{where}"
        self.elsewhere = {
            "escaped": f"/smartassist-recordings/UAT/{where}",
            "space": f"/smartassist%20recordings/UAT/{where}",
            "letter": f"/smartassist-aufn%C3%A4hmen/UAT/{where}",
        }
        """Where a redirect to "same" leads, by how it is spelled."""

    @property
    def paths(self) -> list[str]:
        """Every path that it is served at."""
        return [self.path, *self.elsewhere.values()]

    def sha256(self) -> str:
        """The true body's hash in hexadecimal; computed at the first call, in constant memory, then kept."""
        if self._sha256 is None:
            self._sha256 = sha256_of(self.body)
        return self._sha256


class Session:
    """One scripted session. `turn` counts the sessions, so that those without explicit audio take the files in turn.

    `given` is when its script was given, by the monotonic clock: what the script's times count from.
    """

    def __init__(self, script: SessionScript, *, turn: int, given: float, bot_id: str, folder: dict[str, Path]) -> None:
        self.script = script
        waits = (script.call_ends_at, "call_in_progress"), (script.ready_at, "media_in_progress")
        self.timeline = Timeline(
            script.answers, until=[(None if seconds is None else given + seconds, status) for seconds, status in waits]
        )
        self.has_recording_key = script.recordings is not None
        self.recordings: list[Recording] = []
        for ordinal, recording in enumerate(script.recordings or ()):
            try:
                self.recordings.append(
                    Recording(
                        recording,
                        session_id=script.session_id,
                        ordinal=ordinal,
                        turn=turn + ordinal,
                        bot_id=bot_id,
                        folder=folder,
                    )
                )
            except ValueError as error:
                raise ValueError(f"session script {script.session_id!r}: recordings[{ordinal}].{error}") from error


def _body(script: RecordingScript, identity: str, turn: int, folder: dict[str, Path]) -> Body:
    audio = script.audio
    if audio is None and folder:
        names = list(folder)
        audio = Audio(file=names[turn % len(names)])
    elif audio is None:
        audio = Audio(seconds=DEFAULT_SECONDS)

    if audio.raw is not None:
        return RawBody(audio.raw.encode())
    if audio.base64 is not None:
        return RawBody(b64decode(audio.base64))
    if audio.file is not None:
        if audio.file not in folder:
            raise ValueError(f"audio.file: {audio.file!r} is no *.wav file of the audio_dir")
        return file_body(folder[audio.file], script.riff_sizes)

    seed = audio.seed
    if seed is None:
        seed = int.from_bytes(hashlib.sha256(identity.encode()).digest()[:8])
    if audio.bytes is not None:
        samples = (audio.bytes - HEADER_BYTES) // SAMPLE_BYTES
    else:
        samples = max(1, round((audio.seconds or 0) * SAMPLE_RATE))
    sound = None if audio.silence else seed
    if audio.format == "flac":
        return RawBody(flac_of(samples * SAMPLE_BYTES, sound))
    return GeneratedWav(samples * SAMPLE_BYTES, sound, script.riff_sizes, script.extra)
