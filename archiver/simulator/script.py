"""Session scripts: what the platform answers about one session, ask by ask, and what its recordings are like.

    {"session_id": "65e7133a3242653c58d70001",
     "answers": [{"status": "call_in_progress", "times": 2}, {"fault": "reset"}, {"status": "success"}],
     "recordings": [{"file_name": "22d8-merged.wav", "audio": {"seconds": 3.5, "seed": 7},
                     "faults": [{"kind": "truncate", "at": 1000}]}]}

A call that takes its time is scripted by the clock, whoever asks and how often:

    {"session_id": "65e7133a3242653c58d70002", "call_ends_at": 40, "ready_at": 65.5}

is `call_in_progress` for 40 seconds from when the script was given, then `media_in_progress`, and from 65.5 seconds on what
`answers` says, by default `success`. Scripts given together, in one list, count from the same instant.

The session ID "*" stands for every session that has no script of its own, so that 100,000 of them cost one script.

Every field is explained at its model: below, in `answers` and in `faults`.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from archiver.simulator.answers import AnyAnswer, StatusAnswer
from archiver.simulator.audio import Extra, RiffSizes
from archiver.simulator.checked import Checked, HeaderText, Seconds, parse
from archiver.simulator.faults import AnyFault


def _is_base64(text: str) -> str:
    b64decode(text, validate=True)
    return text


Base64Str = Annotated[str, AfterValidator(_is_base64)]


class Audio(Checked):
    """Where a recording's bytes are from: exactly one of `seconds`, `bytes`, `file`, `raw` and `base64`."""

    seconds: Annotated[float, Field(gt=0, le=86_400)] | None = None
    """A WAV of this length, made up."""
    bytes: Annotated[int, Field(ge=44, le=4_000_000_000)] | None = None
    """A WAV of this size (less one where odd), made up; streamed, so it can be large. 44: a header, and no sound."""
    seed: int | None = None
    """Decides what is made up; by default the session's id and the place in its list do."""
    format: Literal["wav", "flac"] = "wav"
    """What `seconds` is made up as. Its name and its type stay those of a WAV, unless the recording has others."""
    silence: bool = False
    """Nothing but zeros is made up."""
    file: str | None = None
    """A file of the settings' `audio_dir`, by name."""
    raw: str | None = None
    """A body, verbatim, UTF-8."""
    base64: Base64Str | None = None
    """A body, verbatim, whatever its bytes."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [key for key in ("seconds", "bytes", "file", "raw", "base64") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(f"audio needs exactly one of seconds, bytes, file, raw and base64, not {given or 'none'}")
        if given[0] in {"file", "raw", "base64"} and (self.seed is not None or self.silence):
            raise ValueError(f"seed and silence don't go with {given[0]}")
        if self.format == "flac" and given[0] != "seconds":
            raise ValueError(f"flac doesn't go with {given[0]}")
        return self


class RecordingScript(Checked):
    """One entry of the answer's `recording` list."""

    file_name: str | None = None
    """Served as `fileName`, whatever it holds; by default one like the vendor's."""
    audio: Audio | None = None
    """By default a file of `audio_dir`, in turn, or two seconds made up where there is none."""
    content_type: HeaderText = "audio/wav"
    riff_sizes: RiffSizes = "true"
    """The sizes in the WAV's header: "zero", "ffffffff" or "7ffff000" as in a WAV written as a stream; "riff_wrong": that of the
    whole is wrong, that of the sound right; "wrong": incoherent."""
    extra: Extra | None = None
    """What a WAV that is made up has besides: "list", a chunk of 100 KB before the sound; "id3", a tag behind the end."""
    url: str | None = None
    """Served as `fileUrl`, verbatim, in place of a signed one."""
    resumable: Literal["yes", "no", "replaced"] = "yes"
    """Whether the rest of it can be asked for; "no": the host knows neither ranges nor ETags; "replaced": every answer has an
    ETag of its own, as if the file had been replaced."""
    faults: list[AnyFault] = Field(default_factory=list)

    @model_validator(mode="after")
    def _has_a_header(self) -> Self:
        audio = self.audio
        verbatim = audio is not None and (audio.raw is not None or audio.base64 is not None or audio.format == "flac")
        if self.riff_sizes != "true" and verbatim:
            raise ValueError("riff_sizes don't go with a raw body or a FLAC")
        if self.extra is not None and (verbatim or audio is None or audio.file is not None):
            raise ValueError("extra needs an audio of seconds or bytes")
        return self


def _success() -> list[AnyAnswer]:
    return [StatusAnswer(status="success")]


EVERY_OTHER = "*"


class CallScript(Checked):
    """When a session's call was, and how long it took."""

    days_ago: Annotated[float, Field(ge=0, le=3650)]
    seconds: Annotated[float, Field(ge=0, le=86_400)]


class SessionScript(Checked):
    """What the platform knows about one session."""

    session_id: Annotated[str, Field(min_length=1)]
    """With "*", each session that has no script has a timeline of its own; the last 10,000 of them are remembered."""
    call_ends_at: Seconds | None = None
    """Until then (in seconds since the script was given) the answer is `call_in_progress`, which uses up no step of `answers`."""
    ready_at: Seconds | None = None
    """Until then (in the same seconds), and once the call is over, it is `media_in_progress` in the same way."""
    answers: list[AnyAnswer] = Field(default_factory=_success, min_length=1)
    """Step by step, from the first ask that the two times above let through."""
    recordings: list[RecordingScript] | None = Field(default_factory=lambda: [RecordingScript()])
    """The list that comes with `success`; null: the key `recording` is missing."""
    voicemail: bool = False
    """It is one: its recordings are voicemails, which only that API knows. Of any other session that API knows nothing."""
    voicemail_key: Literal["voicemail recording", "voicemail_recording"] = "voicemail recording"
    """How the list of a voicemail is called: as in the vendor's sample, or as in its table."""
    transcriptions: Any = None
    """What comes with a voicemail if it is asked for; null: nothing."""
    note: str = ""
    """What this session is about, for people."""
    expected: Literal["archived", "unavailable", "failed"] | None = None
    """What should become of it. The simulator does nothing with it."""
    call: CallScript | None = None
    """For whoever enqueues it, or puts it into a history. The simulator does nothing with it."""

    @model_validator(mode="after")
    def _call_before_media(self) -> Self:
        if self.call_ends_at is not None and self.ready_at is not None and self.ready_at < self.call_ends_at:
            raise ValueError(f"ready_at ({self.ready_at:g}) is before call_ends_at ({self.call_ends_at:g})")
        return self

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read the JSON form. Raises ValueError that names the session and each wrong key."""
        if not isinstance(data, Mapping):
            raise ValueError(f"a session script is a JSON object, not {type(data).__name__}")  # noqa: TRY004
        return parse(cls, data, f"session script {data.get('session_id', '(without session_id)')!r}")

    def to_json(self) -> dict[str, Any]:
        """The JSON form, defaults left out."""
        return self.model_dump(mode="json", exclude_defaults=True)
