"""The budget of a bot: no sliding window of any length ever sees more calls than its limit.

Time is simulated by moving everything that the database remembers of the budget into the past.
"""

from __future__ import annotations

import asyncio
import random
import time
from datetime import UTC, datetime, timedelta

import pytest

from archiver.errors import RateLimited
from archiver.queue.quota import MAX_PATIENCE, MIN_PATIENCE, PROBE_TURN, Quota
from tests.queue.conftest import MINUTE, QueueHarness

pytestmark = pytest.mark.once  # what Postgres does is the same under every Python

SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)


class Clock:
    """Draws from a budget in a time of its own, and remembers when each call was granted."""

    def __init__(self, harness: QueueHarness, *limits: str) -> None:
        self.quota = harness.quota("bot", *limits)
        self.calls: list[datetime] = []
        self.passed: list[timedelta] = []
        self.now = datetime(2000, 1, 1, tzinfo=UTC)
        self._bench = harness
        self._ahead = timedelta(0)

    async def draw(self, wanted: int = 1) -> tuple[int, timedelta]:
        """How many were granted, and the wait that was named."""
        (row,) = await self._bench.fetch(
            "SELECT granted, wait, clock_timestamp() AS now FROM archive_draw($1, $2, $3::interval[], $4::integer[])",
            self.quota.key, wanted, self.quota.windows, self.quota.limits,
        )  # fmt: skip
        assert 0 <= row["granted"] <= wanted
        self.now = row["now"] + self._ahead
        self.calls += [self.now] * row["granted"]
        self.passed += [self._ahead] * row["granted"]
        return row["granted"], row["wait"]

    async def pass_(self, time: timedelta) -> None:
        self._ahead += time
        await self._bench.fetch(
            """WITH budgets AS (UPDATE archive_budgets SET arrival = arrival - $1::interval, blocked_until = blocked_until - $1)
            UPDATE archive_calls SET at = at - $1""",
            time,
        )

    async def draw_greedily(self, time: timedelta) -> None:
        """Whatever can be had, as soon as it can be had."""
        until = self._ahead + time
        while self._ahead < until:
            _, wait = await self.draw()
            await self.pass_(wait)

    def assert_within(self, *limits: tuple[int, timedelta]) -> None:
        for limit, window in limits:
            for first, over in zip(self.calls, self.calls[limit:], strict=False):
                assert over - first > window, f"{limit + 1} calls within {over - first}, and {limit} are allowed in {window}"


@pytest.mark.parametrize(
    ("limit", "window"),
    [("60/minute", MINUTE), ("1/minute", MINUTE), ("2/second", SECOND), ("300/hour", HOUR), ("7/minute", MINUTE)],
)
async def test_greedy_use_of_one_window_stays_within_it_and_wastes_little(
    harness: QueueHarness, limit: str, window: timedelta
) -> None:
    clock = Clock(harness, limit)
    calls = int(limit.split("/", maxsplit=1)[0])
    for _ in range(2 * calls + 20):
        granted, wait = await clock.draw()
        if not granted:
            await clock.pass_(wait)
    clock.assert_within((calls, window))
    took = clock.calls[-1] - clock.calls[0]
    assert len(clock.calls) - 1 >= (took / window) * (calls - max(1, calls // 100)) * 0.9 - 1, "most of what is allowed"


@pytest.mark.parametrize("seed", range(4))
async def test_erratic_use_of_several_windows_stays_within_all_of_them(harness: QueueHarness, seed: int) -> None:
    chance = random.Random(seed)
    clock = Clock(harness, "20/minute", "100/hour", "150/day")
    for _ in range(250):
        granted, wait = await clock.draw(chance.choice([1, 1, 2, 5, 50]))
        await clock.pass_(wait if not granted and chance.random() < 0.5 else chance.choice([0.0, 0.1, 3, 40, 400]) * SECOND)
    clock.assert_within((20, MINUTE), (100, HOUR), (150, timedelta(days=1)))
    assert len(clock.calls) > 100


async def test_the_whole_of_a_longer_window_can_be_had_and_not_one_more(harness: QueueHarness) -> None:
    clock = Clock(harness, "60000/minute", "300/hour")
    for _ in range(30):
        await clock.draw(20)
        await clock.pass_(SECOND)
    assert len(clock.calls) == 300
    granted, wait = await clock.draw()
    assert granted == 0
    assert HOUR - MINUTE < wait < HOUR + MINUTE


async def test_calls_are_paced_not_bunched(harness: QueueHarness) -> None:
    clock = Clock(harness, "60/minute")
    await clock.draw_greedily(MINUTE)
    gaps = [(after - before).total_seconds() for before, after in zip(clock.calls, clock.calls[1:], strict=False)]
    took = (clock.calls[-1] - clock.calls[0]) / SECOND
    assert 55 <= len(clock.calls) <= took + 1, "a call a second at most, whatever the test itself takes"
    assert min(gaps) > 0.9
    waits = [(after - before) / SECOND for before, after in zip(clock.passed, clock.passed[1:], strict=False)]
    assert max(waits) < 1.3, "of the waits that were named; the rest is the machine's"


async def test_a_large_budget_has_a_burst_of_a_hundredth(harness: QueueHarness) -> None:
    clock = Clock(harness, "6000/hour")
    assert (await clock.draw(1000))[0] == 60
    assert (await clock.draw(1000))[0] <= (clock.now - clock.calls[0]) / SECOND * 2, "and then its pace of less than two a second"
    await clock.pass_(HOUR)
    assert (await clock.draw(1000))[0] == 60, "what was not used is not saved up"


@pytest.mark.parametrize(
    "limits",
    [
        ["10/minute"],
        ["1/minute"],
        ["600/hour"],
        ["60000/minute", "5/hour"],
        ["30/minute", "31/hour", "32/day"],
        ["6/minute", "6/hour"],
    ],
)
async def test_a_draw_after_the_named_wait_succeeds_and_well_before_it_does_not(harness: QueueHarness, limits: list[str]) -> None:
    clock = Clock(harness, *limits)
    waited = 0
    for _ in range(50):
        granted, wait = await clock.draw()
        if granted:
            continue
        if wait < SECOND:
            await clock.pass_(wait)
            continue
        waited += 1
        due = clock.now + wait
        await clock.pass_(wait * 0.9)
        early, _ = await clock.draw()
        assert early == 0 or clock.now >= due, wait  # on a slow machine the rest may have passed meanwhile
        if not early:
            await clock.pass_(wait * 0.1)
            assert (await clock.draw())[0] == 1, wait
    assert waited > 3


async def test_without_limits_everything_is_granted(harness: QueueHarness) -> None:
    assert await Clock(harness).draw(10_000) == (10_000, timedelta(0))


async def test_drawing_nothing_costs_nothing(harness: QueueHarness) -> None:
    clock = Clock(harness, "1/minute")
    assert await clock.draw(0) == (0, timedelta(0))
    assert (await clock.draw())[0] == 1


async def test_many_limits_at_once(harness: QueueHarness) -> None:
    clock = Clock(harness, "5/second", "9/minute", "10/hour", "12/day")
    for _ in range(60):
        await clock.draw()
        await clock.pass_(SECOND * 10)
    assert len(clock.calls) == 10
    await clock.pass_(HOUR)
    for _ in range(60):
        await clock.draw()
        await clock.pass_(SECOND * 10)
    assert len(clock.calls) == 12


@pytest.mark.parametrize(("limits", "most"), [(("60/minute",), 1), (("60000/minute", "50/hour"), 50), (("50/hour",), 1)])
async def test_eight_that_draw_at_once_get_no_more_than_one_would(
    harness: QueueHarness, limits: tuple[str, ...], most: int
) -> None:
    clock = Clock(harness, *limits)

    async def drawer() -> None:
        for _ in range(10):
            await clock.draw(2)

    await asyncio.gather(*(drawer() for _ in range(8)))
    paced = (clock.calls[-1] - clock.calls[0]) / SECOND if most == 1 else 0
    assert most <= len(clock.calls) <= most + paced


async def test_who_draws_waits_for_the_one_who_is_drawing(harness: QueueHarness) -> None:
    clock = Clock(harness, "60000/minute", "50/hour")
    await clock.draw(20)
    drawing = "SELECT archive_draw($1, 30, $2::interval[], $3::integer[])"
    await clock.pass_(SECOND)
    async with harness.locked(drawing, clock.quota.key, clock.quota.windows, clock.quota.limits):
        other = asyncio.create_task(clock.draw(30))
        await harness.blocked()
    assert (await other)[0] == 0


async def test_budgets_of_two_bots_do_not_touch_each_other(harness: QueueHarness) -> None:
    first, second = harness.quota("a", "1/minute"), harness.quota("b", "1/minute")
    await asyncio.wait_for(asyncio.gather(first.draw(), second.draw()), 10)
    with pytest.raises(RateLimited) as caught:
        await first.draw(MIN_PATIENCE)
    assert caught.value.retry_after is not None
    assert timedelta(seconds=50) < caught.value.retry_after <= timedelta(seconds=62)


async def test_what_is_older_than_every_window_is_forgotten(harness: QueueHarness) -> None:
    clock = Clock(harness, "60000/minute", "5/hour")
    await clock.draw(5)
    await clock.pass_(HOUR * 2)
    await clock.draw(1)
    assert await harness.value("SELECT count(*) FROM archive_calls") == 1


async def test_a_day_has_24_hours_where_the_clocks_change(harness: QueueHarness) -> None:
    assert await harness.value("SHOW timezone") == "UTC"


# --- refusals


async def unblock(harness: QueueHarness) -> None:
    await harness.fetch("UPDATE archive_budgets SET blocked_until = clock_timestamp()")


def close(wait: timedelta, seconds: float) -> bool:
    return seconds - 5 < wait.total_seconds() <= seconds


async def test_without_a_retry_after_the_wait_doubles_up_to_a_minute(harness: QueueHarness) -> None:
    quota = harness.quota()
    for seconds in (2, 4, 8, 16, 32, 60, 60):
        wait = await quota.block(None)
        assert seconds * 0.7 < wait.total_seconds() <= seconds
        await unblock(harness)


async def test_the_first_wait_is_a_minute_at_most_too(harness: QueueHarness) -> None:
    settings = harness.quota()
    quota = Quota.__new__(Quota)
    quota.__dict__.update(vars(settings), _backoff_base=timedelta(minutes=10))
    assert close(await quota.block(None), 60)


async def test_one_refusal_met_by_many_calls_counts_once(harness: QueueHarness) -> None:
    quota = harness.quota()
    for wait in await asyncio.gather(*(quota.block(None) for _ in range(16))):
        assert wait.total_seconds() <= 2
    await unblock(harness)
    assert 2 < (await quota.block(None)).total_seconds() <= 4


async def test_an_answer_after_the_block_starts_the_doubling_anew(harness: QueueHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    quota = harness.quota()
    for _ in range(4):
        await quota.block(None)
        await unblock(harness)
    monkeypatch.setattr(quota, "_blocked_until", time.monotonic())
    await quota.answered()
    assert (await quota.block(None)).total_seconds() <= 2


async def test_an_answer_to_a_call_that_was_under_way_leaves_the_doubling(harness: QueueHarness) -> None:
    quota = harness.quota()
    for seconds in (2, 4, 8):
        assert close(await quota.block(None), seconds)
        await quota.answered()
        await unblock(harness)


async def test_a_retry_after_is_kept_and_never_shortened(harness: QueueHarness) -> None:
    quota = harness.quota()
    assert close(await quota.block(timedelta(seconds=100)), 100)
    assert close(await quota.block(timedelta(seconds=10)), 100)
    assert close(await quota.block(None), 100)
    assert close(await quota.block(timedelta(seconds=120)), 120)


async def pass_by(harness: QueueHarness, time: timedelta) -> None:
    await harness.fetch("UPDATE archive_budgets SET blocked_until = blocked_until - $1::interval", time)


async def test_a_long_retry_after_is_probed_in_pauses_that_double_up_to_a_quarter_of_an_hour(harness: QueueHarness) -> None:
    quota, other = harness.quota("bot", "60000/minute"), harness.quota("bot", "60000/minute")
    turn = PROBE_TURN.total_seconds()
    assert close(await quota.block(timedelta(days=1)), 10 + turn)
    assert close(await other.block(timedelta(days=1)), 10 + turn), "one refusal met by several"
    for pause in (10, 20, 40, 80, 160, 320, 640, 900, 900):
        await pass_by(harness, timedelta(seconds=pause - 5))
        assert not await quota.take_probe()
        await pass_by(harness, timedelta(seconds=6))
        assert (await harness.queue.due_probes([quota.key]))[quota.key] <= timedelta(0)
        taken = await asyncio.gather(*(each.take_probe() for each in (quota, other) * 4))
        assert taken.count(True) == 1
        with pytest.raises(RateLimited):
            await other.draw(timedelta(0))
        await quota.probed(timedelta(days=1))


async def test_a_probe_that_passes_opens_the_budget_for_everybody_and_the_doubling_starts_anew(
    harness: QueueHarness,
) -> None:
    quota = harness.quota()
    for _ in range(2):
        assert close(await quota.block(timedelta(hours=1)), 10 + PROBE_TURN.total_seconds())
        await pass_by(harness, timedelta(seconds=12))
        assert await quota.take_probe()
        await quota.probed()
        await harness.quota().draw(timedelta(0))
    assert await harness.queue.due_probes([quota.key]) == {}


async def test_a_probe_that_is_told_a_short_wait_honours_it(harness: QueueHarness) -> None:
    quota = harness.quota()
    await quota.block(timedelta(hours=1))
    await pass_by(harness, timedelta(seconds=12))
    assert await quota.take_probe()
    await quota.probed(timedelta(seconds=7))
    with pytest.raises(RateLimited) as caught:
        await quota.draw(timedelta(0))
    assert caught.value.retry_after is not None
    assert close(caught.value.retry_after, 7)
    assert await harness.queue.due_probes([quota.key]) == {}, "an ordinary block"


async def test_a_budget_that_nobody_probes_opens_by_itself_and_the_next_refusal_doubles(harness: QueueHarness) -> None:
    quota = harness.quota()
    await quota.block(timedelta(hours=1))
    await pass_by(harness, timedelta(seconds=10) + PROBE_TURN)
    await quota.draw(timedelta(0))
    assert not await quota.take_probe()
    assert close(await quota.block(timedelta(hours=1)), 20 + PROBE_TURN.total_seconds())
    await pass_by(harness, timedelta(hours=1))
    assert close(await quota.block(timedelta(hours=1)), 10 + PROBE_TURN.total_seconds()), "long ago"


async def test_a_budget_whose_probe_never_passes_opens_all_the_same(harness: QueueHarness) -> None:
    """It may be the harmless call alone that is refused: then it would be probed, and blocked, for ever."""
    quota = harness.quota("bot", "60000/minute")
    await quota.block(timedelta(days=1))
    for _ in range(10):
        await pass_by(harness, timedelta(hours=1))
        await harness.fetch("UPDATE archive_budgets SET blocked_until = clock_timestamp() + interval '1 second'")
        assert await quota.take_probe()
        await quota.probed(timedelta(days=1))
    assert await harness.queue.due_probes([quota.key]) == {}
    await pass_by(harness, timedelta(minutes=15))
    assert not await quota.take_probe()
    await pass_by(harness, PROBE_TURN)
    await quota.draw(timedelta(0))
    assert close(await quota.block(timedelta(days=1)), 900 + PROBE_TURN.total_seconds()), "it is probed again, but not often"
    assert len(await harness.queue.due_probes([quota.key])) == 1


@pytest.mark.parametrize(
    ("limits", "patience"),
    [
        (["60/minute", "1800/hour"], MIN_PATIENCE),
        (["1/minute"], timedelta(seconds=90)),
        (["2/minute"], timedelta(seconds=90)),
        (["10/hour"], timedelta(minutes=10)),
        (["1/day"], MAX_PATIENCE),
        ([], MIN_PATIENCE),
    ],
)
async def test_a_call_is_waited_for_as_long_as_the_budget_takes_to_grant_one(
    harness: QueueHarness, limits: list[str], patience: timedelta
) -> None:
    assert harness.quota("bot", *limits).patience == patience


async def test_a_probe_is_drawn_from_the_budget_like_any_call(harness: QueueHarness) -> None:
    quota = harness.quota("bot", "60000/minute", "1/hour")
    await quota.draw()
    await quota.block(timedelta(hours=1))
    await pass_by(harness, timedelta(seconds=12))
    assert not await quota.take_probe()
    (due,) = (await harness.queue.due_probes([quota.key])).values()
    assert timedelta(minutes=59) < due < timedelta(minutes=62), "as soon as there is a call to be had"
    assert await harness.value("SELECT count(*) FROM archive_calls") == 1


@pytest.mark.parametrize("nothing", [timedelta(0), timedelta(seconds=-5)])
async def test_a_retry_after_of_nothing_is_none(harness: QueueHarness, nothing: timedelta) -> None:
    assert 1 < (await harness.quota().block(nothing)).total_seconds() <= 2


async def test_a_block_holds_for_every_worker_also_without_limits(harness: QueueHarness) -> None:
    await harness.quota().block(timedelta(seconds=90))
    with pytest.raises(RateLimited) as caught:
        await harness.quota().draw()
    assert caught.value.retry_after is not None
    assert close(caught.value.retry_after, 90)
    await unblock(harness)
    await harness.quota().draw()


async def test_a_short_wait_is_waited(harness: QueueHarness) -> None:
    quota = harness.quota()
    before = await harness.queue.clock()
    await quota.block(timedelta(milliseconds=300))
    await quota.draw()
    assert await harness.queue.clock() - before >= timedelta(milliseconds=300)
