"""Fixity: recorded files are read again and hashed again, and held against what was recorded, those first that were not read for
longest. So a part of all each day comes round to every file, without anything kept but when each was read.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fractions import Fraction

from archiver.errors import ArchiverError
from archiver.postgres.database import Database
from archiver.queue.findings import FileRead, Findings
from archiver.queue.ledger import Ledger
from archiver.queue.recorded import ChosenFiles, RecordedFile, RecordedFiles
from archiver.runtime.cancellation import to_its_end
from archiver.stores import SMALL, Pay, Store
from archiver.stores.fixity import Reading, Verdict, held_against

KEPT_TOGETHER = 500
"""So many files are written down at once, at most."""

KEPT_EVERY = 3.0
"""Seconds after which what was read is written down, however little it is."""

TOGETHER = 1024 * 1024
"""Bytes of small files that one call reads, at most."""

WAITING = 4
"""For each reader, so many of its results wait to be looked at before it reads on."""


@dataclass(frozen=True, slots=True)
class Verified:
    """One recorded file, read to its end, or as far as it is longer than it should be."""

    bot: str
    session_id: str
    store_key: str
    verdict: Verdict
    bytes_recorded: int
    bytes_read: int
    sha256_recorded: str
    sha256_read: str | None
    message: str = ""


@dataclass(frozen=True)
class Terms:
    """What to read, and how. `sample`: this part of what is chosen, counted before; `not_since`: what was not read since that
    moment, or for that long; `jobs`: so many at once, None: as many as the store is read fastest by; `pay`: bounds how fast.
    """

    chosen: ChosenFiles = field(default_factory=ChosenFiles)
    sample: Fraction | None = None
    not_since: datetime | timedelta | None = None
    jobs: int | None = None
    pay: Pay | None = None

    @property
    def whole(self) -> bool:
        """All files of a bot, or of all."""
        return self.chosen.whole and self.sample is None and self.not_since is None


class Verification:
    """One run. With an `actor` the database remembers what was found, and when each file was read; the ledger gets what is found
    damaged, or whole again, and at the end what the run has read. `check` is called when something is missing, or nothing at all
    can be read, and raises where the whole store is away: then nothing of that is written, and the run ends.
    """

    def __init__(
        self,
        database: Database,
        store: Store,
        terms: Terms,
        *,
        actor: str | None = None,
        check: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._database = database
        self._store = store
        self._terms = terms
        self._actor = actor
        self._keeper = _Keeper(Findings(database), actor, check)
        self.not_since: datetime | None = None
        """What was not read since then is read; None before that is known."""
        self.files = self.equal = self.bytes = 0

    @property
    def news(self) -> int:
        """Files that were found wrong in a way that was not known, of those that are written down."""
        return self._keeper.news

    async def run(self, on_file: Callable[[Verified], None]) -> None:
        """Read all of it; `on_file` is called with each. Cancelled, what was read until then is written down all the same."""
        terms = self._terms
        files = RecordedFiles(self._database, terms.chosen)
        now = await files.now()
        self.not_since = _not_since(terms.not_since, now)
        share = None if terms.sample is None else math.ceil(await files.count() * terms.sample)
        at_once = self._store.at_once()
        # Where reading is slow by intent, none waits for others to be told of.
        small = at_once.small if terms.pay is None else 1
        turns = _Turns(files.pages(now, self.not_since), small, share)
        done: _Done = asyncio.Queue(WAITING * (terms.jobs or at_once.calls))
        try:
            async with aclosing(_read(self._store, turns, done, terms)) as reading:
                async for results in reading:
                    await self._take(results, on_file)
            await self._keeper.flush()
            if self._actor is not None and terms.whole:
                await Findings(self._database).forget(terms.chosen.bot)
        finally:
            while not done.empty():  # it was cancelled
                self._note(done.get_nowait(), on_file)
            await to_its_end(self._end())

    async def _take(self, results: _Results, on_file: Callable[[Verified], None]) -> None:
        self._note(results, on_file)
        if self._keeper.is_due():
            # What is being written must be known to be, or not, when the rest is.
            await to_its_end(self._keeper.flush())

    def _note(self, results: _Results, on_file: Callable[[Verified], None]) -> None:
        for file, found in results:
            self.files += 1
            self.equal += found.verdict == "equal"
            self.bytes += found.bytes
            self._keeper.take(FileRead(file.queue_id, file.store_key, file.sha256, found.verdict, found.message), found.bytes)
            on_file(_verified(file, found))

    async def _end(self) -> None:
        try:
            await self._keeper.flush()
        finally:
            if kept := self._keeper.kept:
                counts = {"files": kept.files, "equal": kept.equal, "wrong": kept.files - kept.equal, "bytes": kept.bytes}
                await Ledger(self._database).note("fixity", {**counts, "bot": self._terms.chosen.bot, "by": self._actor})


def _not_since(given: datetime | timedelta | None, now: datetime) -> datetime:
    if given is None:
        return now
    if isinstance(given, datetime):
        return min(given, now)
    return now - given


def _verified(file: RecordedFile, found: Reading) -> Verified:
    return Verified(
        file.bot,
        file.session_id,
        file.store_key,
        found.verdict,
        file.bytes,
        found.bytes,
        file.sha256,
        found.sha256,
        found.message,
    )


@dataclass(slots=True)
class _Kept:
    """How much was written down."""

    files: int = 0
    equal: int = 0
    bytes: int = 0


class _Keeper:
    """Writes down what is found, many files at a time; without an `actor` it only looks whether the store is there. `kept`: what
    was written, once something was.
    """

    def __init__(self, findings: Findings, actor: str | None, check: Callable[[], Awaitable[None]] | None) -> None:
        self.kept: _Kept | None = None
        self._findings = findings
        self._actor = actor
        self._check = check
        self._read: list[FileRead] = []
        self._bytes = 0
        self._first = 0.0
        self.news = 0

    def take(self, read: FileRead, size: int) -> None:
        """The next file, of which `size` bytes were read."""
        if not self._read:
            self._first = asyncio.get_running_loop().time()
        self._read.append(read)
        self._bytes += size

    def is_due(self) -> bool:
        """Whether it is time to write."""
        waited = asyncio.get_running_loop().time() - self._first
        return len(self._read) >= KEPT_TOGETHER or (bool(self._read) and waited >= KEPT_EVERY)

    async def flush(self) -> None:
        """Write what was not written yet."""
        try:
            if self._check is not None and self._is_in_doubt():
                await self._check()
        except ArchiverError:
            self._read, self._bytes = [], 0
            raise
        if self._read and self._actor is not None:
            self.news += await self._findings.write(self._read, actor=self._actor)
            self.kept = self.kept or _Kept()
            self.kept.files += len(self._read)
            self.kept.equal += sum(read.verdict == "equal" for read in self._read)
            self.kept.bytes += self._bytes
        self._read, self._bytes = [], 0

    def _is_in_doubt(self) -> bool:
        verdicts = {read.verdict for read in self._read}
        return "missing" in verdicts or verdicts == {"unreadable"}


# --- many at once

_Results = list[tuple[RecordedFile, Reading]]
_Done = asyncio.Queue[_Results]


async def _read(store: Store, turns: _Turns, done: _Done, terms: Terms) -> AsyncGenerator[_Results, None]:
    """What came of reading each file, in the order in which they are done; nothing now and then where nothing was. Whoever leaves
    off early closes it, and finds in `done` what was read and not handed out yet.
    """

    async def reader() -> None:
        while batch := await turns.next():
            found = await store.digests([(file.store_key, file.bytes) for file in batch], terms.pay)
            results = [(file, held_against(each, file.bytes, file.sha256)) for file, each in zip(batch, found, strict=True)]
            await done.put(results)
            await turns.done(results)

    async def all_readers() -> None:
        tasks = [asyncio.create_task(reader()) for _ in range(terms.jobs or store.at_once().calls)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await turns.close()

    readers = asyncio.create_task(all_readers())
    try:
        while not (readers.done() and done.empty()):
            yield await _next_of(done, readers)
        await readers
    finally:
        readers.cancel()
        await asyncio.gather(readers, return_exceptions=True)


async def _next_of(done: _Done, readers: asyncio.Task[None]) -> _Results:
    """The next results; none after a while without, or when the readers have ended."""
    if not done.empty():
        return done.get_nowait()
    getting = asyncio.create_task(done.get())
    try:
        await asyncio.wait((getting, readers), timeout=KEPT_EVERY, return_when=asyncio.FIRST_COMPLETED)
    finally:
        if not getting.done():
            getting.cancel()
    return getting.result() if getting.done() and not getting.cancelled() else []


class _Turns:
    """Hands out files to readers: one, or some small ones. `share`: only so many, without those that could not be read."""

    def __init__(self, pages: AsyncGenerator[list[RecordedFile], None], small: int, share: int | None) -> None:
        self._pages = pages
        self._small = small
        self._left = share
        self._under_way = 0
        self._changed = asyncio.Condition()
        self._page: Sequence[RecordedFile] = ()
        self._at = 0
        self._following: asyncio.Task[list[RecordedFile] | None] | None = None

    async def next(self) -> list[RecordedFile]:
        """The next files; none: there are no more."""
        async with self._changed:
            while self._left == 0 and self._under_way:  # one of these may be unreadable
                await self._changed.wait()
            if self._left == 0:
                return []
            while self._at >= len(self._page):
                page = await self._next_page()
                if page is None:
                    return []
                self._page, self._at = page, 0
            most = self._small if self._left is None else min(self._small, self._left)
            batch = [self._page[self._at]]
            size = batch[0].bytes
            self._at += 1
            while len(batch) < most and self._at < len(self._page):
                file = self._page[self._at]
                size += file.bytes
                if max(file.bytes, batch[0].bytes) > SMALL or size > TOGETHER:
                    break
                batch.append(file)
                self._at += 1
            if self._left is not None:
                self._left -= len(batch)
                self._under_way += len(batch)
            return batch

    async def done(self, results: _Results) -> None:
        """These were read."""
        if self._left is None:
            return
        async with self._changed:
            self._left += sum(found.verdict == "unreadable" for _, found in results)
            self._under_way -= len(results)
            self._changed.notify_all()

    async def _next_page(self) -> list[RecordedFile] | None:
        """The next one, and ask for the one after it."""
        task = self._following or asyncio.create_task(self._ask())
        self._following = task
        page = await asyncio.shield(task)
        self._following = None if page is None else asyncio.create_task(self._ask())
        return page

    async def _ask(self) -> list[RecordedFile] | None:
        return await anext(self._pages, None)

    async def close(self) -> None:
        """Ask for no more."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        await self._pages.aclose()
