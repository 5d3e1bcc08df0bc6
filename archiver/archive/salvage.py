"""Bodies in quarantine that are recordings by today's judgement: of failed sessions, whose source may be gone by now.

A body was kept there when the last attempt did not take it for a recording. The history names it; the store is never searched. It
stays where it is: what is taken is a copy under the recording's own key.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from archiver.archive.download import Body
from archiver.archive.mended import Means, Mended, Outcome, because, mended, target_of
from archiver.archive.naming import clean_file_name
from archiver.archive.transfer import Transferred, transfer
from archiver.config.path_template import QUARANTINE
from archiver.errors import RecordingRejected, StoreError, TransferError
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
        facts = refused.facts
        received, declared = facts.get("received"), facts.get("content_type")
        self.expected = received if isinstance(received, int) else None
        self.content_type = declared if isinstance(declared, str) else None
        # Earlier versions did not say so: then what has to be proven whole is not believed.
        self.whole = facts.get("whole") is True

    async def pieces(self) -> AsyncIterator[bytes]:
        """The bytes, as they were kept."""
        async with aclosing(self._store.read(self._key)) as blocks:
            async for block in blocks:
                self._count(block)
                yield block
                if self.expected is not None and self.received > self.expected:
                    break


async def salvage(means: Means, of: Damaged) -> list[Mended]:
    """Take what is a recording, and settle the session if it has all its files then. Raises DatabaseError."""
    files = list(of.files)
    found: list[Mended] = []
    for kept in _judged(of, files):
        if means.dry_run:
            found.append(mended(of, "would_look", from_key=kept[0].key or "", source=QUARANTINE))
            continue
        found.append(await _take(means, of, kept, files))
    if not means.dry_run and _has_all(of, files) and await means.repairs.settle(of.session):
        found.append(mended(of, "archived", message="all its files are there: the session is archived"))
    return found


def _judged(of: Damaged, files: list[SessionFile]) -> list[list[Refused]]:
    """By file that is not recorded: its bodies that were judged to be no recording, the newest first. What was cut short has no
    declared type in its facts: it is not the whole file.
    """
    bodies: dict[tuple[int, str], list[Refused]] = {}
    for refused in reversed(of.refused):
        judged = refused.key is not None and refused.key.startswith(f"{QUARANTINE}/") and "content_type" in refused.facts
        if judged and not _recorded(refused, files):
            bodies.setdefault((refused.ordinal, refused.file_name), []).append(refused)
    return [bodies[file] for file in sorted(bodies)]


def _recorded(refused: Refused, files: list[SessionFile]) -> bool:
    names = {(file.ordinal, file.file_name) for file in files}
    sources = {(file.ordinal, file.source_name) for file in files}
    return (refused.ordinal, refused.file_name) in names or (refused.ordinal, refused.facts.get("source_name")) in sources


async def _take(means: Means, of: Damaged, bodies: list[Refused], files: list[SessionFile]) -> Mended:
    """The newest of a file's bodies that is a recording."""
    judged: list[Mended] = []
    for refused in bodies:
        from_key = refused.key or ""
        try:
            stored = await _copy(means, of, refused, files)
        except (TransferError, StoreError) as error:
            outcome: Outcome = "refused" if isinstance(error, RecordingRejected) else "not_repaired"
            judged.append(mended(of, outcome, from_key=from_key, source=QUARANTINE, **because(error)))
            continue
        key = stored.store_key
        if not await means.repairs.add(of.session, stored, from_key=from_key):
            message = "the session has moved meanwhile; the file is there, and repair will find it"
            return mended(of, "left_alone", store_key=key, from_key=from_key, reason="moved", message=message)
        files.append(SessionFile(stored.ordinal, stored.source_name, stored.file_name, key, stored.bytes, stored.sha256))
        return mended(of, "repaired", store_key=key, from_key=from_key, source=QUARANTINE)
    return judged[0]


async def _copy(means: Means, of: Damaged, refused: Refused, files: list[SessionFile]) -> StoredFile:
    """Copy a body to the recording's own key, judged on the way. Raises TransferError, StoreError."""
    archive, session = means.archive, of.session
    longest = archive.max_file_name(session)
    # Of the history: cleaned again, though it was clean when it was written.
    name = clean_file_name(refused.file_name, [file.file_name for file in files], longest)
    key = archive.target(session, name, 0).key
    target = await target_of(archive, session, key, name)
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


def _has_all(of: Damaged, files: list[SessionFile]) -> bool:
    """Whether nothing is known to be missing of the session: as many files as the platform named last, all that the last attempt
    could not take, and of a voicemail what the answer said beside them, unless that attempt came as far and it said nothing.
    """
    if of.listed is None or not of.refused or sum(file.ordinal > 0 for file in files) < of.listed:
        return False
    last = max(refused.epoch for refused in of.refused)
    open_ones = [refused for refused in of.refused if refused.epoch == last]
    if not all(_recorded(refused, files) for refused in open_ones):
        return False
    if of.session.kind != "voicemail" or any((file.ordinal, file.source_name) == (0, "transcriptions") for file in files):
        return True
    return last == of.session.epoch and of.message in {refused.facts.get("message") for refused in open_ones}
