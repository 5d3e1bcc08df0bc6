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

Every field is explained at its model below.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, Discriminator, Field, Tag, model_validator

from archiver.simulator.audio import Extra, RiffSizes
from archiver.simulator.checked import AnyStatus, Checked, ErrorStatus, HeaderName, HeaderText, Seconds, parse


def _is_base64(text: str) -> str:
    b64decode(text, validate=True)
    return text


Base64Str = Annotated[str, AfterValidator(_is_base64)]
Times = Annotated[int, Field(ge=1)]
Offset = Annotated[int, Field(ge=0)]


# Answers of the API ---------------------------------------------------------------------------------------


class Answer(Checked):
    """One step of the timeline: it lasts for `times` asks (by default 1), or until `for_seconds` have passed
    since it was first asked; the last step lasts for ever, whatever it says."""

    times: Times | None = None
    for_seconds: Seconds | None = None
    headers: dict[HeaderName, HeaderText] = Field(default_factory=dict)
    """Besides or in place of the answer's own; a Content-Encoding is claimed, not applied."""

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.times is not None and self.for_seconds is not None:
            raise ValueError("times and for_seconds exclude each other")
        return self


class StatusAnswer(Answer):
    """The platform's own answer, with HTTP 200. `success` comes with the recordings, any other status without."""

    status: str


class HttpAnswer(Answer):
    """An HTTP status with a body as it is, such as a gateway's error page."""

    http_status: AnyStatus
    body: str = ""
    content_type: HeaderText = "text/html"


class RawAnswer(Answer):
    """HTTP 200 with this body, verbatim."""

    raw: str
    content_type: HeaderText = "application/json"


class ResetFault(Answer):
    """The connection is reset (RST) before any answer."""

    fault: Literal["reset"]


class HangFault(Answer):
    """Accepted and never answered, until the client goes or the simulator closes."""

    fault: Literal["hang"]


class RateLimitedFault(Answer):
    """Refused as if over the rate limit, with the vendor's three messages in turn, whatever the HTTP status.

    Sends Retry-After only where `retry_after` is given.
    """

    fault: Literal["rate_limited"]
    http_status: AnyStatus = 429
    retry_after: Seconds | None = None


class UnauthorizedFault(Answer):
    """Refused as if the token, the credentials or the scope were wrong, in the platform's words for it."""

    fault: Literal["unauthorized"]
    http_status: ErrorStatus = 401
    wrong: Literal["token", "credentials", "scope"] = "token"


def _answer_tag(value: Any) -> str | None:
    fields = value.__dict__ if isinstance(value, BaseModel) else value
    if not isinstance(fields, Mapping):
        return None
    if "fault" in fields:
        return f"<{fields['fault']}>"
    return next((f"<{key}>" for key in ("raw", "http_status", "status") if key in fields), None)


AnyAnswer = Annotated[
    Annotated[StatusAnswer, Tag("<status>")]
    | Annotated[HttpAnswer, Tag("<http_status>")]
    | Annotated[RawAnswer, Tag("<raw>")]
    | Annotated[ResetFault, Tag("<reset>")]
    | Annotated[HangFault, Tag("<hang>")]
    | Annotated[RateLimitedFault, Tag("<rate_limited>")]
    | Annotated[UnauthorizedFault, Tag("<unauthorized>")],
    Discriminator(
        _answer_tag,
        custom_error_type="answer",
        custom_error_message="an answer is an object with 'status', 'http_status', 'raw', or 'fault': "
        "'reset', 'hang', 'rate_limited' or 'unauthorized'",
    ),
]


# Faults of the media origin -------------------------------------------------------------------------------


class Fault(Checked):
    """What goes wrong with the first `times` requests for a recording; null: with all that come to it.

    A recording's faults are used up in the order of the list, one a request whose URL is accepted.
    """

    times: Times | None = 1


class Truncate(Fault):
    """The whole length is promised; after `at` bytes the connection is closed."""

    kind: Literal["truncate"]
    at: Offset


class Reset(Fault):
    """The connection is reset (RST): after `at` bytes, or before any answer where `at` is left out."""

    kind: Literal["reset"]
    at: Offset | None = None


class Slow(Fault):
    """The right body at this speed."""

    kind: Literal["slow"]
    bytes_per_second: Annotated[int, Field(ge=1)]


class Stall(Fault):
    """After `at` bytes nothing more comes, until the client goes or the simulator closes."""

    kind: Literal["stall"]
    at: Offset = 0


class Status(Fault):
    """An HTTP status with this body."""

    kind: Literal["status"]
    http_status: ErrorStatus
    body: str = ""
    content_type: HeaderText = "text/html"


class Page(Fault):
    """An error page with HTTP 200."""

    kind: Literal["page"]
    body: str = "<html><body><h1>Service temporarily unavailable</h1></body></html>"
    content_type: HeaderText = "text/html"


class Json(Fault):
    """A JSON error with HTTP 200."""

    kind: Literal["json"]
    body: str = '{"error": {"code": "InternalError", "msg": "try again"}}'
    content_type: HeaderText = "application/json"


class Empty(Fault):
    """HTTP 200, the recording's content type, no body at all."""

    kind: Literal["empty"]


class NoLength(Fault):
    """No Content-Length (chunked); ended cleanly after `at` bytes, or with the whole body where `at` is left out."""

    kind: Literal["no_length"]
    at: Offset | None = None


class S3Error(Fault):
    """An error page of S3's, whatever its HTTP status: 400 for a token that has expired meanwhile, or even 200."""

    kind: Literal["s3_error"]
    http_status: AnyStatus = 400
    code: Annotated[str, Field(pattern=r"^[A-Za-z.]+$")] = "ExpiredToken"


class Headers(Fault):
    """The recording, with these headers besides or in place of its own; a Content-Encoding is claimed, not applied."""

    kind: Literal["headers"]
    headers: dict[HeaderName, HeaderText]


class Partial(Fault):
    """The whole recording as a 206, whose Content-Range says so, though no range was asked for."""

    kind: Literal["partial"]


class BothLengths(Fault):
    """The whole recording in chunks, and a Content-Length besides: the right one, or `content_length`."""

    kind: Literal["both_lengths"]
    content_length: Offset | None = None


class Expired(Fault):
    """The first `times` URLs handed out are expired already. Used up by the API's answers, not by media requests."""

    kind: Literal["expired"]


class Redirect(Fault):
    """A redirect: to an absolute URL, verbatim, or ("same") to another signed URL of this origin.

    That one serves the recording, after the faults that are left: a request that came by such a redirect is not redirected again,
    except for the `hops` on the way. `spelled` is how the last of them writes a space, or a letter that is not ASCII: escaped as
    it should be, or as it is.
    """

    kind: Literal["redirect"]
    to: HeaderText
    status: Literal[301, 302, 303, 307, 308] = 302
    hops: Annotated[int, Field(ge=1, le=999)] = 1
    spelled: Literal["escaped", "space", "letter"] = "escaped"

    @model_validator(mode="after")
    def _of_this_origin(self) -> Self:
        if self.to != "same" and (self.hops != 1 or self.spelled != "escaped"):
            raise ValueError("hops and spelled need a redirect to 'same'")
        return self


AnyFault = Annotated[
    Truncate
    | Reset
    | Slow
    | Stall
    | Status
    | Page
    | Json
    | Empty
    | NoLength
    | S3Error
    | Headers
    | Partial
    | BothLengths
    | Expired
    | Redirect,
    Field(discriminator="kind"),
]


# Recordings -----------------------------------------------------------------------------------------------


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


# Sessions -------------------------------------------------------------------------------------------------


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
