"""Reads a listing to its end, a closed stretch of time at a time.

No listing says reliably how many calls there are, and pages shift while calls come and go: so pages are read up to a short one,
all over again when they shifted or fell short of the total, and a total that still disagrees is reported. What shows no more than
some pages of a stretch is asked for the rest: from where its pages ended, if they were in order of time, else in shorter
stretches. What nobody can see, and so is not seen here: a call that a listing leaves out without changing its pages or its total.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from archiver.errors import ApiDefect, NoListing
from archiver.kore.listings.calls import DEVELOPER, SECOND, Call, Page, Row, Span
from archiver.kore.listings.sources import MAX_PAGES, OUR_REQUEST, PAGE, Source
from archiver.kore.listings.values import EPOCH

PASSES = 3
"""So often a stretch is read whose pages shift meanwhile."""

SURELY_SHORT = timedelta(days=5)
"""No longer than the vendor allows, whichever way the days of a stretch are counted: no more than six dates are in it."""

ENDLESS = 100_000
"""So many rows of the shortest stretch are read: no millisecond has so many calls, and pages without an end would fill the
memory.
"""

UNORDERED = 850
"""Rows that a stretch should have where its pages come in no order of time, and of which MAX_PAGES can be shown: busier ones fit,
too.
"""

GROWTH, UNORDERED_GROWTH = 4.0, 1.5
"""How much longer than the one before a stretch may be, after quiet hours."""

LEAST_ROWS = 25
"""A page that is not the last counts for at least so many rows: pages of one row each would take days to get to a limit."""

STALE = 10
"""So many pages in a row without a new row are the same one again, not rows that others shift."""

BROKEN = 3
"""So many of the shortest stretches in a row that cannot be read mean that none can."""

FAR = timedelta(days=1)
"""A call so far from the time that was asked for is not there because of a zone, or because it was long."""

FAR_CALLS = 10
"""So many of them on a page, and no other call, are not one odd row."""


@dataclass
class Listing:
    """What a stretch of time was listed to hold."""

    span: Span
    calls: dict[tuple[str, str], Call] = field(default_factory=dict)
    """Those that began within `span`."""
    total: int | None = None
    """Of how many rows the platform spoke last."""
    seen: set[str] = field(default_factory=set)
    """The identities of all rows, those of other channels among them."""
    others: Counter[str] = field(default_factory=Counter)
    """Rows of channels that are not voice, by channel."""
    outside: dict[tuple[str, str], Call] = field(default_factory=dict)
    """Calls that were listed and did not begin within `span`."""
    unreadable: list[str] = field(default_factory=list)
    hidden: bool = False
    """There are more than the platform shows of the shortest stretch that can be asked for."""
    shifted: bool = False
    """Its pages shifted every time they were read."""
    broken: str = ""
    """Why it could not be read at all."""

    @property
    def developer_calls(self) -> int:
        """How many of the calls the platform lists as developers' tests."""
        return sum(DEVELOPER in call.facts for call in self.calls.values())

    @property
    def whole(self) -> bool:
        """Whether every call of it has been seen, as far as anybody can know."""
        return not (self.hidden or self.shifted or self.broken or self.outside or self.unreadable)

    @property
    def problems(self) -> list[dict[str, Any]]:
        """What an operator should know of this stretch: JSON. `gap`: a call may have been missed."""
        found: list[dict[str, Any]] = []
        if self.broken:
            found.append({"problem": "not_listed", "gap": True, "because": self.broken})
        elif self.hidden:
            found.append({"problem": "not_listed_whole", "gap": True, "listed": len(self.seen)})
        elif self.shifted:
            found.append({"problem": "pages_shifted", "gap": True, "listed": len(self.seen)})
        elif self.total is not None and self.total > len(self.seen):
            found.append({"problem": "total_disagrees", "gap": False, "total": self.total, "listed": len(self.seen)})
        if self.outside:
            first = next(iter(self.outside.values()))
            found.append({"problem": "calls_outside", "gap": True, "calls": len(self.outside), "first": first.session_id})
        if self.unreadable:
            first_row = self.unreadable[0]
            found.append({"problem": "rows_unreadable", "gap": True, "rows": len(self.unreadable), "first": first_row})
        where = {"from": self.span.start.isoformat(), "to": self.span.end.isoformat()}
        return [where | problem for problem in found]

    def take(self, row: Row) -> None:
        """Count a row in; of one that was seen before only what may have changed since."""
        new = row.identity not in self.seen
        self.seen.add(row.identity)
        if row.call is not None:
            calls = self.calls if self.span.holds(row.call.started_at) else self.outside
            known = calls.get(row.call.key)
            calls[row.call.key] = row.call if known is None else known.joined(row.call)
        elif row.other and new:
            self.others[row.other] += 1
        elif row.unreadable and new:
            self.unreadable.append(row.unreadable)


class _TooMuch(Exception):
    """A stretch cannot be read whole. `within`: a time that has about as much as can be; `defect`: what came for a page."""

    def __init__(self, within: timedelta, defect: ApiDefect | None = None) -> None:
        self.within = within
        self.defect = defect


@dataclass(frozen=True)
class _Pass:
    """What reading all pages of a time once came to."""

    shifted: bool = False
    """A row came on two of them, or the total changed meanwhile."""
    stuck: bool = False
    """Pages had nothing but rows that had come before, though there were to be more, and ended it."""
    total: int | None = None
    rest: Span | None = None
    """What is left to be asked for, where the pages show only a part."""


class _Order:
    """Whether the calls of a pass come in order of time, and up to where."""

    def __init__(self, span: Span) -> None:
        self._span = span
        self._first: datetime | None = None
        self._last: datetime | None = None
        self._falls = self._rises = True

    def take(self, row: Row) -> None:
        """The next one."""
        if row.call is None:
            return
        at = row.call.started_at
        self._falls = self._falls and self._span.holds(at) and (self._last is None or at <= self._last)
        self._rises = self._rises and self._span.holds(at) and (self._last is None or at >= self._last)
        self._first = at if self._first is None else self._first
        self._last = at

    @property
    def is_lost(self) -> bool:
        """They do not come in order of time, neither way."""
        return not (self._falls or self._rises)

    def rest(self, grain: timedelta) -> Span | None:
        """What has not been shown; None if that cannot be told. The last moment that was shown may have more calls."""
        if self._first is None or self._last is None or self._falls == self._rises:
            return None
        if self._falls:
            rest = Span(self._span.start, _ceiling(self._last + timedelta(microseconds=1), grain))
        else:
            rest = Span(self._last - (self._last - EPOCH) % grain, self._span.end)
        return rest if timedelta(0) < rest.length < self._span.length else None


class Reader:
    """Reads one listing. Remembers how busy it has been lately, whether its totals mean anything, and how much it may ask for."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._believes_totals = True
        self._wanted, self._growth = source.wanted, GROWTH
        self._longest = self._length = source.longest
        self._proven = False
        self._before: Listing | None = None

    async def walk(self, span: Span, *, newest_first: bool = False) -> AsyncIterator[Listing]:
        """All stretches of `span`, one after the other, without a gap. Each has been read to its end, or says why not. A bound
        finer than the listing's own times is moved to the next that it knows, so that two spans that meet share nothing.

        Raises KoreError: what was yielded before is good.
        """
        grain = self.source.grain
        start, end = _ceiling(span.start, grain), _ceiling(span.end, grain)
        broken = 0
        while start < end:
            length = min(self._length, end - start)
            part = Span(end - length, end) if newest_first else Span(start, start + length)
            try:
                listing = await self._read(part)
                self._proven = True
                broken = broken + 1 if listing.hidden and length <= grain else 0
            except ApiDefect as refusal:
                # How the days of a stretch are counted is not documented, nor what is said of one that is too long.
                ours = isinstance(refusal, NoListing) or refusal.facts.get("http_status") in OUR_REQUEST
                if not ours or length <= SURELY_SHORT or self._longest <= SURELY_SHORT:
                    raise
                self._longest = self._length = SURELY_SHORT
                continue
            except _TooMuch as much:
                if much.defect is not None and not self._proven:
                    # Either this stretch has something odd in it, or nothing is a listing at all, which one more page tells.
                    await self.source.page(Span(part.start, part.start + grain), 0, 0)
                    self._proven = True
                if length > grain:
                    self._length = _whole(min(length / 2, much.within * 0.8), grain)
                    continue
                broken += 1
                if broken == BROKEN and much.defect is not None:
                    raise much.defect from None
                listing = Listing(part, broken=str(much.defect))
            if broken == BROKEN:
                raise ApiDefect(
                    f"even the shortest stretches have more than {len(listing.seen)} rows, such as the one at {part.start}",
                    hint="this cannot be so: tell the platform's support; until then no account can be closed",
                )
            self._check_dates(listing)
            # As long as this one was, for as many rows as are wanted; a quiet stretch says little of the next one.
            factor = min(self._wanted / max(len(listing.seen), 1), self._growth)
            self._length = min(_whole(length * factor, grain), self._longest)
            if newest_first:
                end = part.start
            else:
                start = part.end
            yield listing

    async def _read(self, span: Span) -> Listing:
        listing = Listing(span)
        rest: Span | None = span
        while rest is not None:
            rest = await self._read_on(listing, rest)
        return listing

    async def _read_on(self, listing: Listing, span: Span) -> Span | None:
        """Read `span`, which ends the listing's or is all of it, and return what is left to be asked for."""
        found: set[str] = set()
        for again in range(PASSES):
            before = len(found)
            read = await self._pass(listing, span, found)
            if read.rest is not None:
                return read.rest
            listing.shifted = read.shifted
            short = self._believes_totals and read.total is not None and read.total > len(found)
            if listing.hidden or not (listing.shifted or short):
                break
            if again and len(found) == before:
                # Nothing came or went meanwhile: it lists rows twice, or counts something else, and would do so for ever. One
                # whose next page is the same again shows no more than that.
                listing.shifted, listing.hidden = False, read.stuck
                self._believes_totals = self._believes_totals and not short
                break
        return None

    async def _pass(self, listing: Listing, span: Span, found: set[str]) -> _Pass:
        """Read all pages of `span` once, and note their rows in `found`. Raises _TooMuch."""
        source = self.source
        divisible = span.length > source.grain
        here: set[str] = set()
        totals: set[int | None] = set()
        order = _Order(span)
        shifted = False
        number = seen = stale = 0
        while True:
            page = await self._page(span, number, seen)
            number, seen = number + 1, seen + len(page.rows)
            identities = {row.identity for row in page.rows}
            if page.total != len(page.rows):  # else it may be what the page has, and says nothing of the others
                totals.add(page.total)
            stale = stale + 1 if identities <= here else 0
            stuck = stale == STALE or (stale > 0 and len(page.rows) >= PAGE)
            shifted = shifted or len(totals) > 1 or not identities.isdisjoint(here)
            here |= identities
            found |= identities
            if span == listing.span:
                listing.total = page.total
            for row in page.rows:
                listing.take(row)
                order.take(row)
            _check_page(span, page)
            total = page.total if self._believes_totals and page.total is not None else 0
            if divisible and total > source.most:
                raise _TooMuch(span.length * (source.wanted / total))
            self._heed_order(order, span, total, pages=number)
            ended = len(page.rows) < PAGE and not (page.rows and (page.more or total > seen))
            if ended or stuck:
                return _Pass(shifted, stuck and not ended, page.total)
            read = max(seen, number * LEAST_ROWS)
            if read < source.most if source.shows_all else number < MAX_PAGES:
                continue
            if divisible:
                rest = None if shifted or source.shows_all else order.rest(source.grain)
                if rest is None:
                    raise _TooMuch(_time_of(listing.calls.values()))
                self._check_room(listing, rest, told=total > seen)
                return _Pass(rest=rest)
            if not source.shows_all or read >= ENDLESS:
                listing.hidden = True
                return _Pass()

    def _heed_order(self, order: _Order, span: Span, total: int, *, pages: int) -> None:
        """Ask for less where pages come in no order: from where they end nobody could go on, so a stretch has to fit into them,
        also when a day's work begins. Raises _TooMuch.
        """
        if self.source.shows_all or not order.is_lost:
            if pages > 1:
                self._wanted, self._growth = self.source.wanted, GROWTH
            return
        self._wanted, self._growth = UNORDERED, UNORDERED_GROWTH
        if span.length > self.source.grain and total > MAX_PAGES * PAGE:
            raise _TooMuch(span.length * (UNORDERED / total) / 0.8)

    async def _page(self, span: Span, number: int, seen: int) -> Page:
        try:
            return await self.source.page(span, number, seen)
        except NoListing:
            raise
        except ApiDefect as defect:
            if defect.facts.get("http_status", 0) >= 400:
                raise  # it is what we say that is refused, whatever the time
            raise _TooMuch(span.length, defect) from None

    def _check_room(self, listing: Listing, rest: Span, *, told: bool) -> None:
        """Whether the rows of a listing, of which `rest` is left, will be too many for one. Raises _TooMuch."""
        covered, rows = listing.span.length - rest.length, len(listing.seen)
        expected = rows if told else rows * (listing.span.length / covered)
        if max(expected / 2, rows) > self.source.most:  # busy hours say too much of a week
            raise _TooMuch(covered * (self.source.wanted / rows))

    def _check_dates(self, listing: Listing) -> None:
        """A platform that does not look at the dates shows the same for any of them. Raises ApiDefect."""
        before, self._before = self._before, listing
        if before is not None and before.seen == listing.seen:
            far = [call for call in listing.outside.values() if _is_far(call, listing.span)]
            if far:
                raise _ignores_dates(far[0])


def _check_page(span: Span, page: Page) -> None:
    """The same of a platform that shows so many that a stretch would have no end. Raises ApiDefect."""
    calls = [row.call for row in page.rows if row.call is not None]
    if len(page.rows) >= PAGE and not any(span.holds(call.started_at) for call in calls):
        far = [call for call in calls if _is_far(call, span)]
        if len(far) >= FAR_CALLS:
            raise _ignores_dates(far[0])


def _is_far(call: Call, span: Span) -> bool:
    ended_at = call.ended_at or call.started_at
    return call.started_at >= span.end + FAR or max(ended_at, call.started_at) < span.start - FAR


def _ignores_dates(call: Call) -> ApiDefect:
    return ApiDefect(
        f"the listing shows other times than it was asked for, such as {call.started_at}",
        hint="tell the platform's support: until then no account can be closed",
    )


def _time_of(calls: Iterable[Call]) -> timedelta:
    """From the first of their beginnings to the last."""
    moments = [call.started_at for call in calls]
    return max(moments) - min(moments) + SECOND if moments else SECOND


def _ceiling(moment: datetime, grain: timedelta) -> datetime:
    return moment + -(moment - EPOCH) % grain


def _whole(length: timedelta, grain: timedelta) -> timedelta:
    return max(length - length % grain, grain)
