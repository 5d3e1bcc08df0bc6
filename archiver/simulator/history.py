"""The calls that the platform knows of, as its listings and its recordings API see them."""

from __future__ import annotations

import time
from array import array
from bisect import bisect_left, bisect_right, insort_right
from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from archiver.simulator.answers import StatusAnswer
from archiver.simulator.calls import Call, HistoryScript, MadeScript
from archiver.simulator.made import MadeCalls
from archiver.simulator.script import Audio, RecordingScript, SessionScript

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from archiver.simulator.calls import Traits

__all__ = ["Call", "History", "HistoryScript", "MadeScript", "Page"]

SHORTEST_SECONDS = 0.1

Filter = tuple[str, Any]


class Page(NamedTuple):
    """Calls, and how many there are on all pages together."""

    calls: list[Call]
    total: int


class History:
    """The calls of a script: numbered, and listed by start.

    A page costs two searches and its own calls, however many calls there are. What makes a call fit a filter is kept in lists of
    numbers, one for each combination of filters that a listing has.
    """

    def __init__(self, script: HistoryScript | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        script = script or HistoryScript(calls=[])
        self.recovered = bool(script.recovered)
        """Whether what was failing succeeds."""
        self._clock = clock
        self._given = clock()
        self._listings = 0
        self._made = None if script.made is None else MadeCalls(script.made)
        self._scripted = script.calls or []
        first = len(self._made or ())
        self._numbers = {call.session_id: first + at for at, call in enumerate(self._scripted)}
        self._starts = array("q") if self._made is None else self._made.starts[:]
        self._starts.extend(call.started_ms for call in self._scripted)
        if taken := [each for each in self._numbers if self._made is not None and self._made.number_of(each) is not None]:
            raise ValueError(f"history: the session_id {taken[0]!r} is that of a call that is made up")

        self.voice = sum(self._traits(number).is_voice for number in range(len(self)))
        """How many are voice calls."""
        self._lists: defaultdict[Filter, array[int]] = defaultdict(lambda: array("I"))
        self._waiting = {
            number: call
            for number, call in enumerate(self._scripted, first)
            if call.appears_at is not None or call.appears_after is not None
        }
        for number in sorted(range(len(self._starts)), key=self._starts.__getitem__):
            if number not in self._waiting:
                for each in _filters(self._traits(number)):
                    self._lists[each].append(number)

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, number: int) -> Call:
        made = self._made
        return made[number] if made is not None and number < len(made) else self._scripted[number - len(made or ())]

    def find(self, session_id: str) -> Call | None:
        """The call of this session, listed yet or not."""
        number = self._number_of(session_id)
        return None if number is None else self[number]

    def voice_calls(self, first_ms: int, last_ms: int) -> list[Call]:
        """Every voice call, listed yet or not, whose start is within, both included; oldest first."""
        numbers = self._lists[details_filter(voice=True, with_bot=True)]
        listed = numbers[slice(*self._between(numbers, first_ms, last_ms))]
        waiting = [number for number, call in self._waiting.items() if call.is_voice and first_ms <= call.started_ms <= last_ms]
        return [self[number] for number in sorted([*listed, *waiting], key=self._starts.__getitem__)]

    # Listings ---------------------------------------------------------------------------------------------

    def begin_listing(self) -> None:
        """A listing is about to be answered: calls that are due by now appear."""
        passed = self._clock() - self._given
        for number, call in list(self._waiting.items()):
            if passed >= (call.appears_at or 0) and self._listings >= (call.appears_after or 0):
                del self._waiting[number]
                for each in _filters(call.traits):
                    insort_right(self._lists[each], number, key=self._starts.__getitem__)
        self._listings += 1

    def page(self, fit: Filter, first_ms: int, last_ms: int, *, skip: int, limit: int, newest_first: bool) -> Page:
        """Of the listed calls that fit, and whose start is within (both included), `limit` after `skip`."""
        numbers = self._lists[fit]
        places = range(*self._between(numbers, first_ms, last_ms))
        ordered = places[::-1] if newest_first else places
        return Page([self[numbers[place]] for place in ordered[skip : skip + limit]], len(places))

    def look_up(self, session_ids: list[str]) -> list[Call]:
        """Those of the given calls that are listed, newest first."""
        numbers = {self._number_of(session_id) for session_id in session_ids} - {None} - self._waiting.keys()
        return sorted((self[number] for number in numbers if number is not None), key=lambda call: -call.started_ms)

    # Recordings -------------------------------------------------------------------------------------------

    def script_of(self, session_id: str, kept_from_ms: int | None = None) -> SessionScript | None:
        """What the API of recordings, or of voicemail, answers about a call; None if there is no such call.

        A recording is as long as its call, unless that says otherwise, and no shorter than `SHORTEST_SECONDS`; its bytes follow
        from the session's ID. Recordings of calls that began before `kept_from_ms` are gone.
        """
        call = self.find(session_id)
        if call is None:
            return None
        gone = kept_from_ms is not None and call.started_ms < kept_from_ms
        statuses = ["media_unavailable"] if gone else self._statuses(call)
        recordings = []
        if call.ended_ms is not None and statuses != ["media_unavailable"]:
            seconds = call.recorded_seconds or max((call.ended_ms - call.started_ms) / 1000, SHORTEST_SECONDS)
            recordings.append(RecordingScript(audio=Audio(seconds=seconds, format=call.recorded_as)))
        answers = [StatusAnswer(status=status) for status in statuses]
        return SessionScript(session_id=session_id, answers=list(answers), recordings=recordings, voicemail=call.voicemail)

    def _statuses(self, call: Call) -> list[str]:
        if not call.is_voice or call.recording == "unavailable" or call.unanswered:
            return ["media_unavailable"]
        if call.ended_at is None:
            return ["call_in_progress"]
        if call.recording == "failing" and not self.recovered:
            return ["failed"]
        return ["call_in_progress", "media_in_progress", "success"] if call.recording == "in_progress" else ["success"]

    def _traits(self, number: int) -> Traits:
        made = self._made
        return made.traits(number) if made is not None and number < len(made) else self[number].traits

    def _number_of(self, session_id: str) -> int | None:
        number = self._numbers.get(session_id)
        return self._made.number_of(session_id) if number is None and self._made is not None else number

    def _between(self, numbers: array[int], first_ms: int, last_ms: int) -> tuple[int, int]:
        begin = bisect_left(numbers, first_ms, key=self._starts.__getitem__)
        end = bisect_right(numbers, last_ms, key=self._starts.__getitem__)
        return begin, max(begin, end)


def sessions_filter(containment: str | None = None) -> Filter:
    """Calls as the sessions history filters them; None: all."""
    return "sessions", containment


def details_filter(*, voice: bool | None = None, direction: str | None = None, with_bot: bool = False) -> Filter:
    """Calls as the call details filter them, or, with those that ended at the bot, the interaction details; None: either."""
    return "interactions" if with_bot else "details", (voice, direction)


def _filters(traits: Traits) -> Iterator[Filter]:
    """Every combination that a call with these traits fits."""
    for containment in (None, traits.containment):
        yield sessions_filter(containment)
    for voice in (None, traits.is_voice):
        for direction in (None, traits.direction):
            yield details_filter(voice=voice, direction=direction, with_bot=True)
            if not traits.ended_at_bot:
                yield details_filter(voice=voice, direction=direction)
