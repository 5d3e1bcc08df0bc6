"""Scripted faults of the media origin: what goes wrong with a request for a recording."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from archiver.simulator.checked import AnyStatus, Checked, ErrorStatus, HeaderName, HeaderText, Offset, Times


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
