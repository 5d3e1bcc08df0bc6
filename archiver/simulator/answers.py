"""Scripted answers of the API: the steps of a session's timeline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Discriminator, Field, Tag, model_validator

from archiver.simulator.checked import AnyStatus, Checked, ErrorStatus, HeaderName, HeaderText, Seconds, Times


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
