"""Bodies in quarantine that are recordings by today's judgement: of failed sessions, whose source may be gone by now.

A body was kept there when the last attempt did not take it for a recording. The history names it; the store is never searched. It
stays where it is: what is taken is a copy, under a key beside the recording's own, and only of what was refused then: its hash
was noted.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace

from archiver.archive.audio import Inspection, first_bytes
from archiver.archive.download import Body
from archiver.archive.mended import MAX_BESIDE, Means, Mended, Outcome, because, beside, mended, target_of
from archiver.archive.naming import clean_file_name
from archiver.archive.transfer import Transferred, transfer
from archiver.config.path_template import QUARANTINE
from archiver.errors import RecordingRejected, StoreError, StoreUnavailable, TransferError
from archiver.observe.transfers import Transfer, Transfers
from archiver.queue.repairs import Damaged, Refused
from archiver.queue.reports import SessionFile
from archiver.session import StoredFile, source_name
from archiver.stores import Store


class _Kept(Body):
    """A body in quarantine. Errors are those of `Store.read`."""

    def __init__(self, store: Store, refused: Refused, progress: Transfer, transfers: Transfers) -> None:
        super().__init__(progress, transfers)
        assert refused.key is not None
        self._store = store
        self._key = refused.key
        self._proven = _hash_of(refused) is not None
        self._first_bytes = refused.text("first_bytes")
        facts = refused.facts
        received, declared = facts.get("received"), facts.get("content_type")
        self.expected = received if isinstance(received, int) else None
        self.content_type = declared if isinstance(declared, str) else None
        # Earlier versions did not say so: then what has to be proven whole is not believed.
        self.whole = facts.get("whole") is True

    def inspect(self, name: str) -> Inspection:
        """Besides: whether it is what was refused then. Its hash proves it, which is compared elsewhere; earlier versions noted
        its length and first bytes alone.
        """
        found = super().inspect(name)
        if self._proven:
            return found
        if self.expected is None or self._first_bytes != first_bytes(self.excerpt.head):
            raise RecordingRejected("not proven to be what was refused then", reason="recording_differs", received=self.received)
        return replace(found, flags=(*found.flags, "unproven"))

    async def pieces(self) -> AsyncIterator[bytes]:
        """The bytes, as they were kept."""
        async with aclosing(self._store.read(self._key)) as blocks:
            async for block in blocks:
                self._count(block)
                yield block
                if self.expected is not None and self.received > self.expected:
                    break


class _Occupied(StoreError):
    """Something that is no row's has the recording's own key."""


async def salvage(means: Means, of: Damaged) -> list[Mended]:
    """Take what is a recording, and settle the session if it has all its files then. Raises DatabaseError, StoreUnavailable."""
    files = list(of.files)
    found: list[Mended] = []
    for kept in _judged(means, of, files):
        if means.dry_run:
            found.append(mended(of, "would_look", from_key=kept[0].key or "", source=QUARANTINE))
            continue
        found.append(await _take(means, of, kept, files))
    if not means.dry_run and _has_all(means, of, files) and await means.repairs.settle(of.session):
        found.append(mended(of, "archived", message="all its files are there: the session is archived"))
    return found


def _judged(means: Means, of: Damaged, files: list[SessionFile]) -> list[list[Refused]]:
    """By file that is not recorded, and of which a body was judged to be no recording: what was kept of it, the newest first."""
    bodies: dict[str, list[Refused]] = {}
    for refused in reversed(of.refused):
        kept = refused.key is not None and refused.key.startswith(f"{QUARANTINE}/")
        if (kept or refused.conflict) and not _recorded(means, of, refused, files):
            bodies.setdefault(refused.file_name, []).append(refused)
    return [bodies[name] for name in sorted(bodies) if any(_was_judged(one) for one in bodies[name])]


def _was_judged(refused: Refused) -> bool:
    """What was cut short has no declared type in its facts: it is not the whole file."""
    return refused.key is not None and "content_type" in refused.facts


def _recorded(means: Means, of: Damaged, refused: Refused, files: list[SessionFile]) -> bool:
    names = {(file.ordinal, file.file_name) for file in files}
    sources = {(file.ordinal, file.source_name) for file in files}
    return (refused.ordinal, refused.file_name) in names or (refused.ordinal, _source_name(means, of, refused)) in sources


async def _take(means: Means, of: Damaged, bodies: list[Refused], files: list[SessionFile]) -> Mended:
    """The newest of a file's bodies, if it is a recording. Where there were others, nobody here chooses an older one."""
    newest = bodies[0]
    from_key = newest.key or ""
    if of.conflict or any(refused.conflict for refused in bodies) or not _was_judged(newest):
        return _conflict(of, from_key, "bodies came of it that differ, or cannot be compared: choose by hand")
    try:
        stored = await _copy(means, of, newest, files)
    except StoreUnavailable:
        raise
    except _Occupied as error:
        return _conflict(of, from_key, error.message)
    except (TransferError, StoreError) as error:
        if any(_differs(refused, newest) for refused in bodies):
            return _conflict(of, from_key, f"the newest body is not taken ({error.message}), and older ones differ")
        taken_as = isinstance(error, RecordingRejected) and error.reason != "recording_differs"
        outcome: Outcome = "refused" if taken_as else "not_repaired"
        return mended(of, outcome, from_key=from_key, source=QUARANTINE, **because(error))
    key = stored.store_key
    if not await means.repairs.add(of.session, stored, from_key=from_key):
        message = "the session has moved meanwhile: what is there now is no recording's, and nobody's row names it"
        return mended(of, "left_alone", store_key=key, from_key=from_key, reason="moved", message=message)
    files.append(SessionFile(stored.ordinal, stored.source_name, stored.file_name, key, stored.bytes, stored.sha256))
    return mended(of, "repaired", store_key=key, from_key=from_key, source=QUARANTINE)


def _conflict(of: Damaged, from_key: str, message: str) -> Mended:
    return mended(of, "not_repaired", from_key=from_key, source=QUARANTINE, reason="conflict", message=message)


def _differs(one: Refused, other: Refused) -> bool:
    """Whether two bodies in quarantine are not the same, as far as anybody noted."""
    if _hash_of(one) is not None and _hash_of(other) is not None:
        return _hash_of(one) != _hash_of(other)
    return any(one.facts.get(fact) != other.facts.get(fact) for fact in ("received", "first_bytes"))


def _hash_of(refused: Refused) -> str | None:
    """Of its body, when that was refused. Earlier versions did not note it."""
    return refused.text("quarantined_sha256")


async def _copy(means: Means, of: Damaged, refused: Refused, files: list[SessionFile]) -> StoredFile:
    """Copy a body, judged on the way, to a key beside the recording's own, which stays free: no claim is held meanwhile, and a
    worker that comes to have the session puts there what the platform serves. Raises TransferError, StoreError.
    """
    archive, session = means.archive, of.session
    longest = archive.max_file_name(session)
    # Of the history: cleaned again, though it was clean when it was written.
    name = clean_file_name(refused.file_name, [file.file_name for file in files], longest)
    own = archive.target(session, name, 0).key
    if await archive.store.size(own) is not None:
        raise _Occupied(f"{own} has something already: find out what it is")
    taken = {file.store_key for file in files}
    number = next(number for number in range(1, MAX_BESIDE + len(taken)) if beside(archive, own, number) not in taken)
    key, name = beside(archive, own, number), beside(archive, name, number)
    target = replace(await target_of(archive, session, key, name), sha256=_hash_of(refused))
    with archive.transfers.track(session.bot, session.session_id, name) as progress:
        done: Transferred = await transfer(
            lambda: _Kept(archive.store, refused, progress, archive.transfers), target, archive.store, lambda: None
        )
    return StoredFile(
        ordinal=refused.ordinal,
        source_name=_source_name(means, of, refused),
        file_name=name,
        store_key=done.saved.key,
        bytes=done.saved.bytes,
        sha256=done.saved.sha256,
        media_type=done.inspection.media_type,
        flags=done.inspection.flags,
        seconds=done.inspection.seconds,
        sample_rate=done.inspection.sample_rate,
        channels=done.inspection.channels,
    )


def _source_name(means: Means, of: Damaged, refused: Refused) -> str:
    """The platform's own name of it, by which a later answer's file is known to be this one. Earlier versions did not note it:
    then it is most probably the one that was made safe, or none where recordings lie in the answers.
    """
    noted = refused.facts.get("source_name")
    if isinstance(noted, str):
        return source_name(noted)
    bot = means.bots.get(of.session.bot)
    return "" if bot is not None and bot.settings.api == "v1" and of.session.kind == "recording" else refused.file_name


def _has_all(means: Means, of: Damaged, files: list[SessionFile]) -> bool:
    """Whether nothing is known to be missing of the session: as many files as the platform named last, all that the last attempt
    could not take, and of a voicemail what the answer said beside them, unless that attempt came as far and it said nothing.
    A conflict is for people to settle.
    """
    if of.conflict or of.listed is None or not of.refused or sum(file.ordinal > 0 for file in files) < of.listed:
        return False
    last = max(refused.epoch for refused in of.refused)
    open_ones = [refused for refused in of.refused if refused.epoch == last]
    if any(one.conflict for one in open_ones) or not all(_recorded(means, of, one, files) for one in open_ones):
        return False
    if of.session.kind != "voicemail" or any((file.ordinal, file.source_name) == (0, "transcriptions") for file in files):
        return True
    return last == of.session.epoch and of.message in {refused.facts.get("message") for refused in open_ones}
