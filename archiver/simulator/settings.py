"""What the simulated platform enforces."""

from __future__ import annotations

import os
import secrets
import uuid
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, field_validator

from archiver.simulator.checked import AnyStatus, Checked, Seconds
from archiver.simulator.limits import parse_limit
from archiver.simulator.tokens import ALGORITHMS

Port = Annotated[int, Field(ge=0, le=65535)]
Id = Annotated[str, Field(min_length=1)]
Listing = Literal["getSessions", "callDetails", "interactionDetails"]
ErrorShape = Literal["errors", "error", "message", "text"]
Scope = Literal["SmartAssist Recordings", "Delete Recordings", "SmartAssist Voicemail", "SmartAssist Analytics", "Bot Sessions"]


class AddedBot(Checked):
    """One more bot."""

    bot_id: Id
    client_id: Id
    client_secret: Id
    account_id: Id | None = None


class SimulatorSettings(Checked):
    """Checked at every assignment, so whatever can be changed while the simulator runs is changed by assigning to it.

    Raises ValueError (pydantic's) for a value that cannot be.
    """

    model_config = ConfigDict(validate_assignment=True)

    host: str = "127.0.0.1"
    public_host: str | None = None
    """The name in the URLs handed out, where it is not `host`: a container listens on 0.0.0.0."""
    api_port: Port = 0
    """0: any free port. So for `media_port`."""
    media_port: Port = 0

    bot_id: Id = Field(default_factory=lambda: f"st-{uuid.uuid4()}")
    client_id: Id = Field(default_factory=lambda: f"cs-{uuid.uuid4()}")
    client_secret: Id = Field(default_factory=lambda: secrets.token_urlsafe(48))
    """64 characters by default: long enough for HS512 too."""

    account_id: Id = Field(default_factory=lambda: f"a-{uuid.uuid4()}")
    """The account of every bot that is added without one; call details are asked for by it."""
    scopes: tuple[Scope, ...] = ("SmartAssist Recordings", "SmartAssist Voicemail", "SmartAssist Analytics", "Bot Sessions")
    """What the apps of all bots are allowed to do; anything else is answered with `scope_status`."""
    scope_status: Literal[401, 403] = 401
    unknown_bot_status: Literal[401, 404] = 401
    """What a bot that the platform doesn't know is answered; 401 as for a bot of another app."""
    agentassist_errors: ErrorShape = "errors"
    """The shape of errors under /agentassist: as everywhere; {"error": {"message"}}; {"message"}; or bare text."""

    algorithms: tuple[str, ...] = ("HS256",)
    public_key_pem: str | None = None
    """For RS256 and RS512."""
    enforce_jti: bool = False
    enforce_jwe: bool = False

    v1_paths: tuple[Literal["1.1", "plain"], ...] = ("1.1", "plain")
    """By which paths version 1 of the recordings API is known; by any other it is a 404."""

    rate_limits: tuple[str, ...] = ("60/minute", "1800/hour")
    """Of each bot, in sliding windows; none: unlimited. They count the sessions history."""
    account_rate_limits: tuple[str, ...] = ("60/minute",)
    """The same of each account, over all of its bots: recordings of both versions, voicemail, and call details."""
    rate_limit_status: AnyStatus = 429
    """What a refusal comes with; the vendor doesn't say. It may be that of success, or that of bad credentials."""
    retry_after: bool = True
    """Send Retry-After with a refusal that is a 429."""

    listings: tuple[Listing, ...] = ("getSessions", "callDetails", "interactionDetails")
    """Those that the account has; any other is a 404."""
    encrypted_listings: bool = False
    """Payload encryption is on: no listing can be read. `includeMeta` of the sessions history does the same for one answer."""
    listing_fault: Literal["ignores_window", "repeats_page"] | None = None
    """Any window is answered with all calls; or every page is the first."""
    developer_flag: Literal["boolean", "number"] = "boolean"
    """What `isDeveloper` is: true or false as in the vendor's samples, or 1 or 0 as in its words."""
    eleventh_page: Literal["refused", "answered", "empty"] = "refused"
    """What page 10 of the call details is; the vendor says that 10 is the most, and pages count from 0."""
    num_results: Literal["page", "all", "wrong"] = "page"
    """What the `numResults` of the call details counts: the rows of the page, or all that fit; "wrong": more than all."""
    session_totals: Literal["right", "wrong"] = "right"
    """Whether the `total` of the sessions history is how many fit; "wrong": more."""
    page_order: Literal["newest", "oldest"] = "newest"
    """Which calls come first in the call details; the vendor doesn't say."""

    source_retention_days: Annotated[float, Field(ge=0, le=36_500)] | None = None
    """Recordings of the history's calls that began longer ago are gone; null: kept for ever. Vendor: a day to 7 years, by default
    3 months."""
    url_lifetime: Seconds = 60.0
    audio_dir: str | os.PathLike[str] | None = None
    """A folder of WAVs to serve where a script names no audio; read when the simulator is made."""
    clock_skew: Annotated[float, Field(ge=-1e9, le=1e9)] = 0.0
    """Seconds that the Date header of every answer is ahead. Tokens and URLs are judged by the true time."""
    control: bool = True
    """Serve the `/_simulator` endpoints."""

    @field_validator("algorithms")
    @classmethod
    def _known_algorithms(cls, algorithms: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := set(algorithms) - set(ALGORITHMS):
            raise ValueError(f"{', '.join(sorted(unknown))}: the platform knows {', '.join(ALGORITHMS)}")
        return algorithms

    @field_validator("rate_limits", "account_rate_limits")
    @classmethod
    def _readable_limits(cls, rate_limits: tuple[str, ...]) -> tuple[str, ...]:
        for text in rate_limits:
            parse_limit(text)
        return rate_limits

    def model_post_init(self, context: Any, /) -> None:
        if self.public_key_pem is None and any(algorithm.startswith("RS") for algorithm in self.algorithms):
            raise ValueError("RS256 and RS512 need public_key_pem")


ALTERABLE = frozenset(
    {
        "account_rate_limits",
        "agentassist_errors",
        "algorithms",
        "clock_skew",
        "developer_flag",
        "eleventh_page",
        "encrypted_listings",
        "enforce_jti",
        "enforce_jwe",
        "listing_fault",
        "listings",
        "num_results",
        "page_order",
        "public_key_pem",
        "rate_limit_status",
        "rate_limits",
        "retry_after",
        "scope_status",
        "scopes",
        "session_totals",
        "source_retention_days",
        "unknown_bot_status",
        "url_lifetime",
        "v1_paths",
    }
)
"""The settings that take effect when changed while the simulator runs."""
