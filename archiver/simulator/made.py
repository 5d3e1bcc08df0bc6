"""Calls that are made up: 13 bytes each, and the rest of a call from its number when it is asked for."""

from __future__ import annotations

import hashlib
import random
from array import array
from bisect import bisect_right
from datetime import timedelta
from itertools import accumulate
from typing import TYPE_CHECKING

from archiver.simulator.calls import EPOCH, MILLISECOND, NOBODY_ANSWERED, VOICE_CHANNELS, Call, Traits, unix_ms

if TYPE_CHECKING:
    from collections.abc import Iterator

    from archiver.simulator.calls import Containment, MadeScript, Outcome

CHAT_CHANNELS = ("web", "msteams")

_HOUR_MS = 3_600_000
_OUTBOUND_SHARE = 0.2
_PLAIN, _VOICEMAIL, _CHAT, _UNAVAILABLE, _IN_PROGRESS, _FAILING, _UNANSWERED, _AT_BOT, _DEVELOPER = range(9)
_OUTCOMES: dict[int, Outcome] = {_UNAVAILABLE: "unavailable", _IN_PROGRESS: "in_progress", _FAILING: "failing"}
_OUTBOUND = 16  # a bit beside the kind
_CONTAINMENTS: dict[int, Containment] = {
    _VOICEMAIL: "dropOff",
    _UNANSWERED: "dropOff",
    _CHAT: "selfService",
    _AT_BOT: "selfService",
}
_TRAITS = {
    kind | bit: Traits(_CONTAINMENTS.get(kind, "agent"), kind != _CHAT, "Outbound" if bit else "Inbound", kind == _AT_BOT)
    for kind in range(_DEVELOPER + 1)
    for bit in (0, _OUTBOUND)
}

_AGENTS = ("Ada Byron", "Grace Brewster", "Alan Mathison", "Edsger Wybe", "Barbara Jane", "Tony Hoare", "Radia Joy", "Ken Lane")
_QUEUES = ("Claims", "Billing", "Sales", "Support")
_DISPOSITIONS = ("Resolved", "Follow-up", "Transferred", "No answer")
_CAMPAIGNS = ("Renewals", "Winback")
_LANGUAGES = ("en", "en", "en", "es", "de")


class MadeCalls:
    """The calls of a script, numbered by their start. A call's ID is as the vendor's: 24 hexadecimal digits, the first 8 a time.

    Its last 6 are the call's number, so all are different, and any is found without an index.
    """

    def __init__(self, script: MadeScript) -> None:
        chance = random.Random(script.seed)  # noqa: S311 - reproducible on purpose
        self._seed = script.seed
        moments = list(_moments(script, chance))
        burst = len(moments) - script.calls
        kinds = _kinds(script, chance) + bytes(burst)
        order = sorted(range(len(moments)), key=moments.__getitem__)
        self.starts = array("q", [moments[at] for at in order])
        """Unix times, in milliseconds, ascending."""
        least, most = (round(seconds * 1000) for seconds in script.seconds)
        self._lengths = array("i", [chance.randint(least, most) for _ in order])
        self._kinds = bytes(kinds[at] | (_OUTBOUND if chance.random() < _OUTBOUND_SHARE else 0) for at in order)
        if script.unanswered:
            unanswered = [number for number, kind in enumerate(self._kinds) if kind & ~_OUTBOUND == _UNANSWERED]
            self._kinds = self._kinds.translate(bytes.maketrans(bytes([_UNANSWERED]), bytes([_UNANSWERED | _OUTBOUND])))
            for number in unanswered:
                self._lengths[number] = 0

    def __len__(self) -> int:
        return len(self.starts)

    def number_of(self, session_id: str) -> int | None:
        """The number of the call with this ID."""
        if len(session_id) != 24 or not set(session_id) <= set("0123456789abcdef"):
            return None
        number = int(session_id[-6:], 16)
        return number if number < len(self) and self._id(number) == session_id else None

    def traits(self, number: int) -> Traits:
        """Those of the call of this number, for less than the call."""
        return _TRAITS[self._kinds[number]]

    def __getitem__(self, number: int) -> Call:
        kind = self._kinds[number] & ~_OUTBOUND
        facts = self._facts(number)
        who, started = facts[5:13].hex(), EPOCH + self.starts[number] * MILLISECOND
        customer, line = f"+1555{int.from_bytes(facts[5:9]) % 10**7:07}", f"+1800555{facts[9] % 4:04}"
        outbound = bool(self._kinds[number] & _OUTBOUND)
        answered = kind not in {_VOICEMAIL, _CHAT, _UNANSWERED, _AT_BOT}
        passed_on, asked = answered and facts[15] % 8 == 0, answered and facts[15] % 16 == 1
        agent = facts[10] % len(_AGENTS)
        return Call.model_construct(
            session_id=self._id(number),
            started_at=started,
            ended_at=started + self._lengths[number] * MILLISECOND,
            channel=_pick(CHAT_CHANNELS if kind == _CHAT else VOICE_CHANNELS, facts[11]),
            voicemail=kind == _VOICEMAIL,
            direction="Outbound" if outbound else "Inbound",
            caller=line if outbound else customer,
            callee=customer if outbound else line,
            agent=_AGENTS[agent] if answered else None,
            agent_id=f"a-{agent:04}" if answered else None,
            agent_at="segment" if facts[15] % 4 == 2 else "queue",
            consulted=[_AGENTS[agent - 1]] if asked else [],
            joined=[],
            transferred_to=_AGENTS[agent - 2] if passed_on else None,
            campaign=_pick(_CAMPAIGNS, facts[12]) if kind == _UNANSWERED else None,
            contact_status=_pick(NOBODY_ANSWERED, facts[13]) if kind == _UNANSWERED else None,
            ended_at_bot=kind == _AT_BOT,
            developer=kind == _DEVELOPER,
            interactive=kind != _UNANSWERED,
            queue=None if kind in {_UNANSWERED, _AT_BOT} else _pick(_QUEUES, facts[12]),
            dispositions=[_pick(_DISPOSITIONS, facts[13])] if answered else [],
            conversation_id=f"c-{who}",
            language=_pick(_LANGUAGES, facts[14]),
            user_id=f"u-{who}",
            recording=_OUTCOMES.get(kind, "success"),
        )

    def _id(self, number: int) -> str:
        return f"{self.starts[number] // 1000 & 0xFFFFFFFF:08x}{self._facts(number)[:5].hex()}{number:06x}"

    def _facts(self, number: int) -> bytes:
        """Sixteen bytes that decide what is not stored."""
        return hashlib.blake2s(f"{self._seed}/{number}".encode(), digest_size=16).digest()


def _pick(words: tuple[str, ...], at: int) -> str:
    return words[at % len(words)]


def _kinds(script: MadeScript, chance: random.Random) -> bytes:
    """The kind of each of the script's calls."""
    wanted = {
        _VOICEMAIL: script.voicemails,
        _CHAT: script.other_channels,
        _UNAVAILABLE: script.unavailable,
        _IN_PROGRESS: script.in_progress,
        _FAILING: script.failing,
        _UNANSWERED: script.unanswered,
        _AT_BOT: script.ended_at_bot,
        _DEVELOPER: script.developers,
    }
    special = [kind for kind, count in wanted.items() for _ in range(count)]
    kinds = bytearray(script.calls)
    for at, kind in zip(chance.sample(range(script.calls), len(special)), special, strict=True):
        kinds[at] = kind
    return bytes(kinds)


def _moments(script: MadeScript, chance: random.Random) -> Iterator[int]:
    """When the calls begin, in Unix milliseconds; those of the burst come last."""
    spans = list(_hours(script))
    weights = [float(end - begin) for begin, end, _ in spans]
    if script.peak is not None:
        share = {True: script.peak.share, False: 1 - script.peak.share}
        total = {peak: sum(w for w, span in zip(weights, spans, strict=True) if span[2] is peak) for peak in share}
        if all(total.values()):
            weights = [w / total[span[2]] * share[span[2]] for w, span in zip(weights, spans, strict=True)]
    sums = list(accumulate(weights))
    for _ in range(script.calls):
        begin, end, _ = spans[min(bisect_right(sums, chance.random() * sums[-1]), len(spans) - 1)]
        yield chance.randrange(begin, end)
    if script.busiest is not None:
        begin, end = unix_ms(script.busiest.begin), unix_ms(script.busiest.end)
        for _ in range(script.busiest.calls):
            yield chance.randrange(begin, end)


def _hours(script: MadeScript) -> Iterator[tuple[int, int, bool]]:
    """The hours of the script's time, in Unix milliseconds: from, up to, and whether it is the peak's."""
    begin, end = unix_ms(script.begin), unix_ms(script.end)
    offset = (script.begin.utcoffset() or timedelta()) // MILLISECOND
    while begin < end:
        local = begin + offset
        until = min(end, begin + _HOUR_MS - local % _HOUR_MS)
        peak = script.peak is not None and local // _HOUR_MS % 24 == script.peak.hour
        yield begin, until, peak
        begin = until
