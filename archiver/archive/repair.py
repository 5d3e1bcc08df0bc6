"""Recorded files that are lost or damaged, had from the platform once more.

A file is taken only if it has the recorded hash. A missing one comes back under its own key. Where something else has the key, it
stays there as evidence, and the file gets a key beside it, which its row then names. Nothing of it changes a session's state.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

from archiver.archive.context import BotAccess
from archiver.archive.download import Body, Document, Download, InlineBody
from archiver.archive.files import TRANSCRIPTIONS, canonical
from archiver.archive.mended import MAX_BESIDE, Means, Mended, because, beside, discard_left, mended, target_of
from archiver.archive.route import ask
from archiver.archive.salvage import salvage
from archiver.archive.signed_urls import SignedUrls
from archiver.archive.transfer import transfer
from archiver.errors import (
    ArchiverError,
    BudgetSpent,
    CredentialsRejected,
    DatabaseUnreachable,
    KoreError,
    RateLimited,
    RecordingRejected,
    RecordingTooLarge,
    StoreError,
    StoreUnavailable,
    TransferError,
)
from archiver.kore.answers import Answer, RemoteFile
from archiver.kore.inline import Inline
from archiver.observe.logs import logger
from archiver.observe.transfers import Transfer
from archiver.queue.findings import Finding
from archiver.queue.quota import MAX_PATIENCE
from archiver.queue.repairs import Damaged
from archiver.queue.reports import SessionFile
from archiver.session import Attempt
from archiver.stores.fixity import Reading, read_again

log = logger(__name__)

MAX_CANDIDATES = 3
"""So many files of an answer are tried for one that is wanted."""

MAX_REFUSALS = 3
"""So often the platform may say that the budget is spent, before a session is left for the next repair."""


@dataclass
class _Wanted:
    """A file to be had again, and where it goes."""

    file: SessionFile
    reading: Reading
    key: str
    file_name: str
    there: bool = False
    """An earlier repair put it there, and did not come to write it down."""
    error: ArchiverError | None = field(default=None)
    done: bool = False


class Repair:
    """Repairs sessions, one after another. A bot whose credentials are refused, or whose calls are for its rate
    limit however long that is waited out, is not asked for its other sessions.
    """

    def __init__(self, means: Means) -> None:
        self._means = means
        self._refused: dict[str, CredentialsRejected | RateLimited] = {}

    async def session(self, queue_id: int) -> list[Mended]:
        """Repair one session: its recorded files, and of a failed one what lies in quarantine.

        Raises DatabaseUnreachable, and StoreUnavailable where nothing can be stored at all.
        """
        of = await self._means.repairs.read(queue_id)
        if of is None:
            return []
        if of.held:
            return [mended(of, "left_alone", reason="claimed", message="a worker holds it: repair it when that is done")]
        found: list[Mended] = []
        try:
            found += await self._files(of)
            if of.state == "failed":
                found += await salvage(self._means, of)
        except (StoreUnavailable, DatabaseUnreachable):
            raise
        except ArchiverError as error:  # this session's own: the next one is not to blame
            found.append(mended(of, "not_repaired", **because(error)))
        for one in found:
            facts = {"session": one.session_id, "bot": one.bot, "kind": one.kind, "store_key": one.store_key}
            if one.outcome == "repaired":
                log.info("recording_repaired", **facts, from_key=one.from_key, source=one.source)
            elif one.outcome == "not_repaired":
                log.warning("recording_not_repaired", **facts, reason=one.reason, message=one.message)
        return found

    async def _files(self, of: Damaged) -> list[Mended]:
        store = self._means.archive.store
        read = [(file, await read_again(store, file.store_key, file.bytes, file.sha256)) for file in of.files]
        damaged = [(file, reading) for file, reading in read if reading.verdict != "equal"]
        whole = {file.store_key: file for file, reading in read if reading.verdict == "equal"}
        found: list[Mended] = []
        wanted: list[_Wanted] = []
        for file, reading in damaged:
            place = await self._place(of, file, reading, {one.key for one in wanted})
            if place is None:
                found.append(
                    mended(of, "not_repaired", store_key=file.store_key, reason=reading.verdict, message=_unreadable(reading))
                )
            else:
                wanted.append(place)
        if self._means.dry_run:
            return found + [
                mended(of, "would_take" if one.there else "would_ask", store_key=one.key, from_key=one.file.store_key,
                       reason=one.reading.verdict, message=one.reading.message)
                for one in wanted
            ]  # fmt: skip
        if any(not one.there for one in wanted):
            await self._fetch(of, wanted)
        found += [await self._record(of, one) for one in wanted]
        done = {one.file.store_key for one in wanted if one.done}
        left = [Finding(file.store_key, reading.verdict, reading.message) for file, reading in damaged]
        remaining = [finding for finding in left if finding.store_key not in done]
        for finding in await self._means.findings.remembered(of.session.id):
            if finding.store_key in whole:
                found.append(await self._note_whole(of, whole[finding.store_key]))
        await self._means.findings.keep(of.session.id, remaining, actor=self._means.actor)
        return found

    async def _note_whole(self, of: Damaged, file: SessionFile) -> Mended:
        """A file that was lost is whole again, and no row says by whom: a repair that was killed, or a restored backup."""
        await discard_left(self._means.archive, of.session, file.store_key)
        key, name = file.store_key, file.file_name
        if await self._means.repairs.move(of.session, file, key=key, file_name=name, source="unknown"):
            return mended(of, "repaired", store_key=key, source="unknown", message="it is what was recorded again")
        return mended(
            of, "left_alone", store_key=key, reason="moved", message="the session has moved meanwhile; the file is whole"
        )

    async def _place(self, of: Damaged, file: SessionFile, reading: Reading, taken: set[str]) -> _Wanted | None:
        """Where the file goes: what is missing under its own key, else beside it. None where it may be whole all the same.

        `taken`: where other files of this repair go.
        """
        if reading.verdict == "missing":
            return _Wanted(file, reading, file.store_key, file.file_name)
        if reading.verdict == "unreadable" and reading.error != "EIO":
            return None
        keys = taken | {other.store_key for other in of.files}
        for number in range(1, MAX_BESIDE + 1):
            key, name = (beside(self._means.archive, one, number) for one in (file.store_key, file.file_name))
            if key in keys:
                continue
            found = await read_again(self._means.archive.store, key, file.bytes, file.sha256)
            if found.verdict in ("equal", "missing"):
                return _Wanted(file, reading, key, name, there=found.verdict == "equal")
        return None

    async def _record(self, of: Damaged, one: _Wanted) -> Mended:
        file = one.file
        if one.done or one.there:
            one.done = await self._means.repairs.move(of.session, file, key=one.key, file_name=one.file_name, source="platform")
            if one.done:
                return mended(of, "repaired", store_key=one.key, from_key=file.store_key, source="platform")
            message = "the session has moved meanwhile; the file is there, and repair will find it"
            return mended(of, "left_alone", store_key=one.key, from_key=file.store_key, reason="moved", message=message)
        error = one.error or KoreError("the platform's answer no longer has this file", reason="no_longer_listed")
        return mended(of, "not_repaired", store_key=file.store_key, **because(error))

    # --- the platform

    async def _fetch(self, of: Damaged, wanted: list[_Wanted]) -> None:
        """Have from the platform what is not there, as far as that is possible: each is then `done`, or has its `error`."""
        try:
            await self._ask(of, [one for one in wanted if not one.there])
        except StoreUnavailable:
            raise
        except (KoreError, TransferError, StoreError) as error:
            if isinstance(error, CredentialsRejected | RateLimited) and of.session.bot not in self._refused:
                self._refused[of.session.bot] = error
                log.warning("bot_left_out_of_repair", bot=of.session.bot, reason=error.reason, message=error.message)
            for one in wanted:
                one.error = one.error or error

    async def _ask(self, of: Damaged, wanted: list[_Wanted]) -> None:
        session = of.session
        bot = self._means.bots.get(session.bot)
        if bot is None:
            raise KoreError(f"bot {session.bot} is not in this configuration", reason="unknown_bot")
        if session.bot in self._refused:
            raise self._refused[session.bot]
        attempt = Attempt(session)
        draw = partial(bot.quota.draw, MAX_PATIENCE)  # nothing is held meanwhile
        transfers, bandwidth = self._means.archive.transfers, bot.media.bandwidth

        async def take_inline(recording: Inline) -> None:
            for one in wanted:
                if not one.done and (one.file.ordinal, one.file.source_name) == (recording.ordinal, ""):
                    await self._transfer(of, one, partial(InlineBody, recording, bandwidth, transfers=transfers))
                    return

        answer = await _patiently(bot, lambda: ask(attempt, bot, draw=draw, take_inline=take_inline))
        if answer.status != "success":
            raise KoreError(f"the platform says {answer.status}", reason=answer.status)
        urls = SignedUrls(attempt, answer, lambda: _patiently(bot, lambda: ask(attempt, bot, draw=draw)))
        for one in wanted:
            await self._take(of, one, bot, answer, urls)

    async def _take(self, of: Damaged, one: _Wanted, bot: BotAccess, answer: Answer, urls: SignedUrls) -> None:
        transfers = self._means.archive.transfers
        if (one.file.ordinal, one.file.source_name) == TRANSCRIPTIONS and answer.transcriptions is not None:
            said = canonical(answer.transcriptions)
            await self._transfer(of, one, lambda progress: Document(said, "application/json", progress, transfers))
            return
        for remote in _candidates(answer, one.file, of.files):
            if one.done:
                return
            await self._transfer(of, one, partial(Download, bot.media, urls.of(remote), transfers=transfers))

    async def _transfer(self, of: Damaged, one: _Wanted, open_body: Callable[[Transfer], Body]) -> None:
        archive, session = self._means.archive, of.session
        target = await target_of(archive, session, one.key, one.file_name, recorded=one.file)
        try:
            with archive.transfers.track(session.bot, session.session_id, one.file_name) as progress:
                await transfer(lambda: open_body(progress), target, archive.store, lambda: None)
        except StoreUnavailable:
            raise
        except RecordingTooLarge as error:
            differs = f"{error.facts.get('promised') or 'more'} bytes came, {one.file.bytes} are recorded"
            one.error = RecordingRejected(differs, reason="recording_differs")
        except (TransferError, StoreError) as error:
            one.error = error
        else:
            one.done = True


async def _patiently(bot: BotAccess, ask_once: Callable[[], Awaitable[Answer]]) -> Answer:
    """Ask; a refusal for the rate limit blocks the budget for everybody, and is waited out."""
    for left in reversed(range(MAX_REFUSALS)):
        try:
            answer = await ask_once()
        except BudgetSpent:
            raise
        except RateLimited as error:
            await bot.quota.block(error.retry_after)
            if not left:
                raise
        else:
            await bot.quota.answered()
            return answer
    raise AssertionError("the last try returns or raises")


def _unreadable(reading: Reading) -> str:
    if reading.verdict == "unreadable":
        return f"{reading.message}; it may be whole: let it be read, then verify again"
    return f"{reading.message}; nothing can be put beside it"


def _candidates(answer: Answer, file: SessionFile, known: list[SessionFile]) -> list[RemoteFile]:
    """Which files of an answer may be this one: of its place and name; else of its name, unless they are known to be others."""
    exact = [remote for remote in answer.files if (remote.ordinal, remote.name) == (file.ordinal, file.source_name)]
    others = {(other.ordinal, other.source_name) for other in known}
    named = [remote for remote in answer.files if remote.name == file.source_name and (remote.ordinal, remote.name) not in others]
    return (exact + named)[:MAX_CANDIDATES]
