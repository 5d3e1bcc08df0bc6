"""The script of a history: which calls the platform knows of.

    {"calls": [{"session_id": "65e7133a3242653c58d70001", "started_at": "2025-03-17T09:00:00.250Z",
                "ended_at": "2025-03-17T09:01:06Z", "caller": "+15550100", "queue": "Claims"}],
     "made": {"from": "2025-03-01T00:00:00Z", "to": "2025-03-31T00:00:00Z", "calls": 200000, "seed": 7,
              "peak": {"hour": 10, "share": 0.2}, "voicemails": 500, "failing": 10}}

Every field is explained at its model below.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import AwareDatetime, Field, model_validator

from archiver.simulator.checked import Checked, Seconds, parse
from archiver.simulator.script import EVERY_OTHER

VOICE_CHANNELS = ("korevg", "audiocodes", "twiliovoice", "IVR")
"""Vendor: the channels of calls that are spoken, as the sessions history names them."""

NOBODY_ANSWERED = ("no-answer", "busy", "failed")
"""Vendor: the contact statuses of a dial that nobody answered; its start and its end are equal."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)
LONGEST = timedelta(days=1)

Count = Annotated[int, Field(ge=0, le=5_000_000)]
Direction = Literal["Inbound", "Outbound"]
Containment = Literal["dropOff", "selfService", "agent"]
Outcome = Literal["success", "unavailable", "in_progress", "failing"]


def unix_ms(moment: datetime) -> int:
    """Whole milliseconds since 1970, rounded down."""
    return (moment - EPOCH) // MILLISECOND


class Traits(NamedTuple):
    """What listings filter by."""

    containment: Containment
    is_voice: bool
    direction: Direction
    ended_at_bot: bool = False


class Call(Checked):
    """One call. Times are to the millisecond; what is finer is cut off."""

    session_id: Annotated[str, Field(min_length=1)]
    started_at: AwareDatetime
    ended_at: AwareDatetime | None = None
    """null: it is still running. At most a day after the start."""
    channel: Annotated[str, Field(min_length=1)] = "korevg"
    """A call is a voice call if this is one of `VOICE_CHANNELS`."""
    voicemail: bool = False
    direction: Direction = "Inbound"
    caller: str | None = None
    callee: str | None = None
    numbers_at: Literal["metaInfo", "endUserNumber", "customerinfo", "metaInfo.customerinfo"] = "metaInfo"
    """Where a row of the call details has the two numbers: as caller and callee, as endUserNumber and dialedNumber (the line), or
    in the customer's information at the top (which has to be selected) or inside."""
    agent: str | None = None
    agent_id: str | None = None
    agent_at: Literal["queue", "segment"] = "queue"
    """Whether the agent is the queue's `respondingAgent`, or a destination of its own."""
    consulted: list[str] = Field(default_factory=list)
    """Whom the agent asked: names, or telephone numbers."""
    joined: list[str] = Field(default_factory=list)
    transferred_to: str | None = None
    """The name of the agent whom the first one passed the call to."""
    queue: str | None = None
    dispositions: list[str] = Field(default_factory=list)
    disposition_remarks: list[str] = Field(default_factory=list)
    campaign: str | None = None
    """The campaign that dialed."""
    contact_status: str | None = None
    """What became of the contact; a disposition, or one of `NOBODY_ANSWERED`."""
    ended_at_bot: bool = False
    """No agent was ever asked for: the call details don't list it, the interaction details do."""
    developer: bool = False
    """A developer's test."""
    interactive: bool = True
    """The caller said something."""
    conversation_id: str | None = None
    language: str = "en"
    tags: list[Any] | dict[str, Any] | None = None
    """Served verbatim; by default as of a session without any. Its `sessionTags` are the call details' `sessionleveltags`."""
    user_id: str | None = None
    recording: Outcome = "success"
    """What the recordings API answers, where the session has no script of its own: "unavailable" for good; "in_progress" at the
    first two asks (the call, then its media; so again if it was forgotten meanwhile), then success; "failing": `failed` until
    the history has recovered."""
    recorded_seconds: Annotated[float, Field(gt=0, le=86_400)] | None = None
    """How long the recording is; by default as long as the call. Shorter: the recording was paused, or stopped on purpose."""
    recorded_as: Literal["wav", "flac"] = "wav"
    appears_at: Seconds | None = None
    """The listings show it from so many seconds after the script was given."""
    appears_after: Count | None = None
    """The listings show it once so many of them were answered since the script was given, by either endpoint. With `appears_at`:
    once both are so."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.session_id == EVERY_OTHER:
            raise ValueError(f"session_id {EVERY_OTHER!r} stands for no call")
        if self.ended_at is not None and not timedelta() <= self.ended_at - self.started_at <= LONGEST:
            raise ValueError("ended_at is before started_at, or more than a day after it")
        if (self.consulted or self.joined or self.transferred_to) and not (self.agent or self.agent_id):
            raise ValueError("consulted, joined and transferred_to need an agent")
        if self.ended_at_bot and (self.agent or self.agent_id):
            raise ValueError("a call that has an agent has not ended_at_bot")
        return self

    @property
    def unanswered(self) -> bool:
        """A campaign dialed, and nobody answered: there was nothing to record."""
        return self.contact_status in NOBODY_ANSWERED and self.ended_ms == self.started_ms

    @property
    def started_ms(self) -> int:
        return unix_ms(self.started_at)

    @property
    def ended_ms(self) -> int | None:
        return None if self.ended_at is None else unix_ms(self.ended_at)

    @property
    def is_voice(self) -> bool:
        return self.channel in VOICE_CHANNELS

    @property
    def containment(self) -> Containment:
        """Vendor: the three words. Which call is which is made up here."""
        if self.voicemail or self.unanswered:
            return "dropOff"
        return "agent" if self.agent is not None or self.agent_id is not None else "selfService"

    @property
    def traits(self) -> Traits:
        return Traits(self.containment, self.is_voice, self.direction, self.ended_at_bot)


class Peak(Checked):
    """`share` of all calls begin within this hour of a day, by the clock of `from`."""

    hour: Annotated[int, Field(ge=0, le=23)]
    share: Annotated[float, Field(ge=0, le=1)]


class Span(Checked):
    """Calls that begin from `from` up to, and not at, `to`."""

    begin: AwareDatetime = Field(alias="from")
    end: AwareDatetime = Field(alias="to")
    calls: Count

    @model_validator(mode="after")
    def _forward(self) -> Self:
        if self.end - self.begin < MILLISECOND:
            raise ValueError("to must be after from")
        return self


class MadeScript(Span):
    """Calls that are made up, equal for equal scripts. `calls` is how many; each of the kinds below is part of them."""

    seed: int = 1
    seconds: tuple[float, float] = (60.0, 600.0)
    """The shortest and the longest call; any length between is as likely."""
    peak: Peak | None = None
    """By default any moment is as likely."""
    busiest: Span | None = None
    """So many voice calls more, within this time."""
    voicemails: Count = 0
    other_channels: Count = 0
    """Chats: no voice calls, though the sessions history lists them."""
    unavailable: Count = 0
    in_progress: Count = 0
    failing: Count = 0
    unanswered: Count = 0
    """Dials of a campaign that nobody answered."""
    ended_at_bot: Count = 0
    developers: Count = 0
    """Tests of developers, otherwise plain calls."""

    @model_validator(mode="after")
    def _add_up(self) -> Self:
        least, most = self.seconds
        if not 0 <= least <= most <= LONGEST.total_seconds():
            raise ValueError("seconds are [shortest, longest], up to 86400")
        kinds = self.voicemails + self.other_channels + self.unavailable + self.in_progress + self.failing
        kinds += self.unanswered + self.ended_at_bot + self.developers
        if kinds > self.calls:
            raise ValueError(
                "voicemails, other_channels, unavailable, in_progress, failing, unanswered, ended_at_bot and developers are "
                f"{kinds} of {self.calls} calls"
            )
        return self


class HistoryScript(Checked):
    """A history: `calls`, those that are `made` up, or both. `recovered` alone changes the history that there is."""

    calls: list[Call] | None = None
    made: MadeScript | None = None
    recovered: bool | None = None
    """True: what was `failing` succeeds from now on."""

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.calls is None and self.made is None and self.recovered is None:
            raise ValueError("a history needs calls, made, or both; or recovered")
        ids = [call.session_id for call in self.calls or ()]
        if len(set(ids)) < len(ids):
            twice = next(each for each in ids if ids.count(each) > 1)
            raise ValueError(f"two calls have the session_id {twice!r}")
        return self

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read the JSON form. Raises ValueError that names each wrong key."""
        if not isinstance(data, Mapping):
            raise ValueError(f"a history is a JSON object, not {type(data).__name__}")  # noqa: TRY004
        return parse(cls, data, "history")
