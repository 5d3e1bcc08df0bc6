"""The check of `doctor` that goes to the end of the way: the first bytes of one recording, from where workers would get it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import aiohttp
from yarl import URL

from archiver.archive.addresses import is_of_machines
from archiver.archive.audio import inspect
from archiver.archive.context import BotAccess
from archiver.archive.excerpt import Excerpt
from archiver.archive.media import MediaClient
from archiver.errors import (
    ApiDefect,
    CredentialsRejected,
    KoreError,
    MediaHostRefused,
    MediaUnreachable,
    MediaUrlExpired,
    MediaUrlRefused,
    RateLimited,
    RecordingRejected,
    TransferError,
)
from archiver.health.bot_checks import SPENT, draws
from archiver.health.findings import Finding
from archiver.kore.answers import Answer, RemoteFile
from archiver.kore.exchange import Pay
from archiver.kore.listings.calls import UNANSWERED, Call, Span
from archiver.kore.listings.sources import Source
from archiver.runtime.body_reader import BodyReader

FIRST_BYTES = 1024

PATIENCE = 30.0
"""Seconds that the whole check may take: a host that sends a byte now and then would keep it for hours."""

MAX_SESSIONS = 3
"""So many sessions are asked for their recordings at most."""

RECENT = (timedelta(days=1), timedelta(days=6))
"""The last day is looked at first; if no call of it has ended, the days before."""

SETTLED = timedelta(minutes=15)
"""Of a call that ended so long ago the recording is most likely there: such calls are asked for first."""

NO_AUDIO = frozenset({"recording_empty", "recording_is_page", "recording_is_json", "recording_is_text"})
"""Why bytes are no recording, whatever would follow them."""

AGAIN = "run doctor again when a call has been recorded: nobody knows yet whether this machine reaches the host of its recordings"


@dataclass
class _Fetched:
    """How far the check has come."""

    host: str = ""
    """Which host is waited for; empty: the platform's API."""
    count: int = 0


async def check_media(bot: BotAccess, source: Source | None, *, budget: bool, patience: float = PATIENCE) -> Finding:
    """The first kilobyte of one of the newest recordings, through what workers fetch with. `source`: the listing that says which
    calls there are; None: there is none. It ends after `patience` seconds. Every call of the API is drawn from
    the budget, if there is one. Nothing is stored.
    """
    name = bot.settings.name
    check = f"bot {name}: media"
    if bot.settings.api == "v1":
        return Finding(check, "ok", "version 1 of the API has the recordings in its answers: no other host is needed")
    if source is None:
        return Finding(
            check, "warning", "nothing to try: without a listing no recent call is known", f"see to the listing; {AGAIN}"
        )
    _, draw = draws(bot, budget=budget)
    fetched = _Fetched()
    try:
        async with asyncio.timeout(patience):
            calls = await _recent_calls(source)
            if not calls:
                days = sum(RECENT, timedelta()).days
                return Finding(
                    check, "warning", f"nothing to try: no call that ended within the last {days} days is listed", AGAIN
                )
            return await _try(check, bot, calls[:MAX_SESSIONS], draw, fetched)
    except TimeoutError:
        return _too_slow(check, fetched, patience)
    except RateLimited as error:
        return Finding(check, "warning", f"not tried: {error.message}", SPENT)
    except KoreError as error:
        return Finding(check, "warning", f"not tried: {error.message}", error.hint or "try again in a minute")


async def _recent_calls(source: Source) -> list[Call]:
    """Those of one page of the listing that may have a recording, newest first; those that have just ended last."""
    now = end = datetime.now(UTC).replace(microsecond=0)
    for length in RECENT:
        page = await source.page(Span(end - length, end), 0, 0)
        calls = [
            row.call
            for row in page.rows
            if row.call is not None and row.call.kind == "recording" and UNANSWERED not in row.call.facts
            if row.call.ended_at is not None and row.call.ended_at <= now
        ]
        if calls:
            calls.sort(key=lambda call: call.started_at, reverse=True)
            return sorted(calls, key=lambda call: call.ended_at is not None and call.ended_at > now - SETTLED)
        end -= length
    return []


async def _try(check: str, bot: BotAccess, calls: list[Call], draw: Pay, fetched: _Fetched) -> Finding:
    """What comes of the first recording that one of the calls has. Raises RateLimited, ApiUnreachable."""
    without: dict[str, int] = {}
    refused: KoreError | None = None
    found: Finding | None = None
    for call in calls:
        fetched.host = ""
        try:
            answer = await _ask(bot, call, draw)
        except (CredentialsRejected, ApiDefect) as error:
            refused = error
            continue
        if not answer.files:
            without[answer.status] = without.get(answer.status, 0) + 1
            continue
        try:
            return Finding(check, "ok", await _fetch(bot.media, answer.files[0], fetched))
        except TransferError as error:
            found = _of_transfer(check, bot.settings.name, answer.files[0], error)
            if not isinstance(error, MediaUrlExpired | RecordingRejected):
                return found  # what concerns the host will be no other for the next one
    if found is not None:
        return found
    if refused is not None:
        return Finding(check, "warning", f"nothing to try: {refused.message}", refused.hint or AGAIN)
    statuses = ", ".join(f"{count} {status}" for status, count in without.items())
    return Finding(check, "warning", f"nothing to try: the newest calls have no recording ({statuses})", AGAIN)


async def _ask(bot: BotAccess, call: Call, draw: Pay) -> Answer:
    async def once() -> Answer:
        async with bot.client.ask(call.session_id, user_id=call.user_id, draw=draw, on_answer=lambda _: None) as asking:
            return await asking.answer()

    return await bot.client.retrying(once)


async def _fetch(media: MediaClient, file: RemoteFile, fetched: _Fetched) -> str:
    """Where the first bytes of a recording came from, and what they are; the connection is closed then. Raises TransferError."""
    reader, excerpt = BodyReader(media.stall, 0), Excerpt()
    fetched.host, fetched.count = _host(file), 0
    response = await media.open(file.url)
    fetched.host = response.url.host or fetched.host
    try:
        while excerpt.length < FIRST_BYTES and (piece := await reader.read(response.content)):
            excerpt.take(piece[: FIRST_BYTES - excerpt.length])
            fetched.count = excerpt.length
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise MediaUnreachable(
            f"the connection broke after {excerpt.length} bytes ({type(error).__name__})",
            host=f"{response.url.host}:{response.url.port}",
        ) from None
    finally:
        response.close()
    try:
        inspect(name=file.name, excerpt=excerpt, content_type=response.headers.get("Content-Type"), whole=False)
    except RecordingRejected as error:
        if error.reason in NO_AUDIO:
            raise
    kind = excerpt.format.media_type if excerpt.format is not None else "of an unknown format"
    first, last = _host(file), response.url.host or ""
    host = last if first == last else f"{last} (redirected from {first})"
    return f"{host} sent the first {excerpt.length:,} bytes of a recording ({kind})"


def _too_slow(check: str, fetched: _Fetched, patience: float) -> Finding:
    if not fetched.host:
        return Finding(
            check, "warning", f"not tried: the platform's API took longer than {patience:g} s", "try again in a minute"
        )
    return Finding(
        check,
        "failure",
        f"{fetched.host} is too slow: of the first {FIRST_BYTES:,} bytes it sent {fetched.count:,} within {patience:g} s",
        f"look at the network, firewall and proxy between this machine and {fetched.host}; else ask the platform's support",
    )


def _host(file: RemoteFile) -> str:
    try:
        return URL(file.url, encoded=True).host or ""
    except ValueError:
        return ""


def _of_transfer(check: str, name: str, file: RemoteFile, error: TransferError) -> Finding:
    """A failed transfer, with the host and what to open or to change."""
    match error:
        case MediaHostRefused(public=False, facts=facts) if "redirected" in facts or is_of_machines(str(facts["address"])):
            return Finding(check, "failure", error.message, error.hint)
        case MediaHostRefused(public=False):
            hint = (
                f'if recordings come from there, write "{error.host}" itself into bots.{name}.media_hosts: an inner address is '
                "used only if the list names its host literally"
            )
            return Finding(check, "failure", error.message, hint)
        case MediaHostRefused():
            return Finding(check, "failure", error.message, error.hint)
        case MediaUnreachable():
            host = str(error.facts.get("host", "")) or _host(file)
            if error.reason.startswith("media_http_"):
                return Finding(
                    check, "warning", f"{_host(file)}: {error.message}", "the host itself is in trouble: try again later"
                )
            if error.reason == "media_answer_unreadable":
                hint = (
                    f"what answers at {host} speaks no HTTP: look whether a firewall or proxy answers in its place; else ask the "
                    "platform's support"
                )
                return Finding(check, "failure", f"no recording from {host}: {error.message}", hint)
            hint = f"open the way from this machine to {host} in the firewall, or name the proxy to take in network.proxy"
            return Finding(check, "failure", f"no recording from {host}: {error.message}", error.hint or hint)
        case MediaUrlRefused():
            hint = "workers refuse such URLs too: ask the platform's support"
        case MediaUrlExpired():
            hint = "the URL was fresh: a firewall or proxy may answer in the host's place; else ask the platform's support"
        case _:
            hint = "a firewall or proxy may answer in the host's place; else ask the platform's support"
    return Finding(check, "failure", f"{_host(file)}: {error.message}", error.hint or hint)
