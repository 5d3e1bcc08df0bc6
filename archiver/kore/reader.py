"""Reads a listing to its end, a closed stretch of time at a time.

No listing says reliably how many calls there are, and pages shift while calls come and go: so pages are read up to a short one,
all over again when they shifted or fell short of the total, and a total that still disagrees is reported. What shows no more than
some pages of a stretch is read in shorter ones. What nobody can see, and so is not seen here: a call that a listing leaves out
without changing its pages or its total.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from archiver.errors import ApiDefect
from archiver.kore.calls import EPOCH, MAX_PAGES, PAGE, SECOND, Call, Page, Row, Source, Span

PASSES = 3
"""So often a stretch is read whose pages shift meanwhile."""

FIRST = timedelta(days=7)
"""The first stretch; later ones are as long as what was seen suggests."""

ENDLESS = 100_000
"""So many rows of the shortest stretch are read: no millisecond has so many calls, and pages without an end would fill the
memory.
"""

BROKEN = 3
"""So many of the shortest stretches in a row that cannot be read mean that none can."""


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


class Reader:
    """Reads one listing. Remembers how busy it has been lately, and whether its totals mean anything."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._believes_totals = True
        self._length = min(FIRST, source.longest)

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
                broken = 0
            except _TooMuch as much:
                if length > grain:
                    self._length = _whole(min(length / 2, much.within * 0.8), grain)
                    continue
                broken += 1
                if broken == BROKEN and much.defect is not None:
                    raise much.defect from None
                listing = Listing(part, broken=str(much.defect))
            # As long as this one was, for as many rows as are wanted; a quiet stretch says little of the next one.
            factor = min(self.source.wanted / max(len(listing.seen), 1), 4.0)
            self._length = min(_whole(length * factor, grain), self.source.longest)
            if newest_first:
                end = part.start
            else:
                start = part.end
            yield listing

    async def _read(self, span: Span) -> Listing:
        listing = Listing(span)
        for again in range(PASSES):
            before = len(listing.seen)
            listing.shifted, stuck = await self._pass(listing)
            short = self._believes_totals and listing.total is not None and listing.total > len(listing.seen)
            if listing.hidden or not (listing.shifted or short):
                break
            if again and len(listing.seen) == before:
                # Nothing came or went meanwhile: it lists rows twice, or counts something else, and would do so for ever. One
                # whose next page is the same again shows no more than that.
                listing.shifted, listing.hidden = False, stuck
                self._believes_totals = self._believes_totals and not short
                break
        return listing

    async def _pass(self, listing: Listing) -> tuple[bool, bool]:
        """Read all pages once. Whether they shifted meanwhile, for a row came on two of them or the total changed; and whether a
        full page had nothing but such rows, and ended it. Raises _TooMuch.
        """
        source, span = self.source, listing.span
        divisible = span.length > source.grain
        here: set[str] = set()
        totals: set[int | None] = set()
        shifted = False
        number = seen = 0
        while True:
            try:
                page = await source.page(span, number, seen)
            except ApiDefect as defect:
                if defect.facts.get("http_status", 0) >= 400:
                    raise  # it is what we say that is refused, whatever the time
                raise _TooMuch(span.length, defect) from None
            number, seen = number + 1, seen + len(page.rows)
            identities = {row.identity for row in page.rows}
            stuck = len(page.rows) >= PAGE and identities <= here
            shifted = shifted or not identities.isdisjoint(here)
            here |= identities
            if page.total != len(page.rows):  # else it may be what the page has, and says nothing of the others
                totals.add(page.total)
            listing.total = page.total
            for row in page.rows:
                listing.take(row)
            _check_dates(listing, page)
            total = page.total if self._believes_totals and page.total is not None else 0
            if divisible and total > source.most:
                raise _TooMuch(span.length * (source.wanted / total))
            if stuck or (len(page.rows) < PAGE and not (page.rows and (page.more or total > seen))):
                return shifted or len(totals) > 1, stuck
            full = seen >= source.most or (number >= MAX_PAGES and not source.shows_all)
            if full and divisible:
                raise _TooMuch(_time_of(listing.calls.values()))
            if full and (not source.shows_all or seen >= ENDLESS):
                listing.hidden = True
                return False, False


def _check_dates(listing: Listing, page: Page) -> None:
    """A platform that does not look at the dates would be asked for the same calls for ever. Raises ApiDefect."""
    if len(page.rows) >= PAGE and not listing.calls and len(listing.outside) >= PAGE:
        first = next(iter(listing.outside.values()))
        raise ApiDefect(
            f"the listing shows other times than it was asked for, such as {first.started_at}",
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
