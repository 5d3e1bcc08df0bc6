"""Memory on loan: never more than there is, first come, first served, and nobody waits for somebody who waits."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archiver.runtime.buffers import Buffers, Reservation


async def turn() -> None:
    """Let everything that is ready run."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_who_comes_first_is_served_first_though_a_smaller_wish_would_fit() -> None:
    buffers = Buffers(100)
    served: list[str] = []
    release = asyncio.Event()

    async def take(name: str, size: int) -> None:
        async with buffers.reserve(size):
            served.append(name)
            await release.wait()

    tasks = [asyncio.create_task(take(name, size)) for name, size in (("a", 70), ("b", 60), ("c", 10))]
    await turn()
    assert served == ["a"]
    release.set()
    await asyncio.gather(*tasks)
    assert served == ["a", "b", "c"]
    assert buffers.try_take(100)


async def test_a_wish_for_more_than_there_is_gets_all_of_it() -> None:
    async with Buffers(100).reserve(1000) as reservation:
        assert reservation.size == 100


async def test_what_is_given_back_early_serves_others_and_is_given_back_once() -> None:
    buffers = Buffers(100)
    async with buffers.reserve(100) as first:
        waiting = asyncio.create_task(_enter(buffers, 60))
        await turn()
        assert not waiting.done()
        first.shrink(40)
        first.shrink(90)  # no growth by this way
        assert first.size == 40
        stack = await waiting
        assert not buffers.try_take(1)
    assert buffers.try_take(40)
    buffers.give(40)
    await stack.aclose()
    assert buffers.try_take(100)


async def test_growth_is_granted_at_once_or_not_at_all_and_never_before_those_who_wait() -> None:
    buffers = Buffers(100)
    async with buffers.reserve(50) as one:
        assert one.grow(20)
        assert not one.grow(40)
        waiting = asyncio.create_task(_enter(buffers, 60))
        await turn()
        assert not one.grow(1)
        one.shrink(40)
        await (await waiting).aclose()
    assert buffers.try_take(100)


@pytest.mark.parametrize("granted", [False, True])
async def test_who_stops_waiting_leaves_nothing_taken(granted: bool) -> None:
    buffers = Buffers(100)
    async with buffers.reserve(100) as first:
        waiting = asyncio.create_task(_enter(buffers, 100))
        behind = asyncio.create_task(_enter(buffers, 100))
        await turn()
        if granted:
            first.shrink(0)  # granted, and cancelled before it has run
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    await (await behind).aclose()
    assert buffers.try_take(100)


async def test_holder_and_waiter_cancelled_in_one_turn_both_see_just_that() -> None:
    """As when a worker stops: each ends by its cancellation, and by nothing else."""
    buffers = Buffers(100)

    async def hold() -> None:
        async with buffers.reserve(100):
            await asyncio.Event().wait()

    tasks = [asyncio.create_task(hold()) for _ in range(4)]
    await turn()
    for task in tasks:
        task.cancel()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(end) for end in ends] == [asyncio.CancelledError] * 4
    assert buffers.try_take(100)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 150), st.integers(0, 3), st.booleans()), min_size=1, max_size=25))
def test_never_more_than_the_limit_and_everybody_comes_through(wishes: list[tuple[int, int, bool]]) -> None:
    limit = 100

    async def main() -> None:
        buffers = Buffers(limit)
        held: dict[int, Reservation] = {}

        async def one(number: int, size: int, turns: int) -> None:
            async with buffers.reserve(size) as reservation:
                held[number] = reservation
                assert sum(other.size for other in held.values()) <= limit
                for _ in range(turns):
                    await asyncio.sleep(0)
                    reservation.grow(7)
                    assert sum(other.size for other in held.values()) <= limit
                reservation.shrink(3)
                await asyncio.sleep(0)
                del held[number]

        tasks = [asyncio.create_task(one(number, size, turns)) for number, (size, turns, _) in enumerate(wishes)]
        await asyncio.sleep(0)
        for task, (_, _, cancelled) in zip(tasks, wishes, strict=True):
            if cancelled:
                task.cancel()
                held.pop(tasks.index(task), None)
                await asyncio.sleep(0)
        await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
        assert buffers.try_take(limit)

    asyncio.run(main())


async def _enter(buffers: Buffers, size: int) -> AsyncExitStack:
    stack = AsyncExitStack()
    await stack.enter_async_context(buffers.reserve(size))
    return stack


async def test_who_turns_out_to_need_more_gives_all_back_and_is_served_before_those_who_hold_nothing() -> None:
    buffers = Buffers(100)
    async with buffers.reserve(70), buffers.reserve(10) as small, buffers.reserve(10) as other:
        waiting = asyncio.create_task(_enter(buffers, 20))
        await turn()
        grown = [asyncio.create_task(one.reach(size)) for one, size in ((small, 30), (other, 500))]
        await turn()
        assert grown[0].done()
        assert small.size == 30
        assert not grown[1].done()  # all there is: it waits for everybody, and holds up nobody who has what he needs
        assert other.size == 0
        grown[1].cancel()
        await asyncio.gather(grown[1], return_exceptions=True)
        await small.reach(20)
        assert small.size == 30
    stack = await waiting
    await stack.aclose()
    assert buffers.try_take(100)


async def test_two_that_need_more_at_the_same_time_both_get_it() -> None:
    buffers = Buffers(100)

    async def grows() -> None:
        async with buffers.reserve(50) as one:
            await turn()
            await one.reach(100)
            assert one.size == 100

    await asyncio.gather(*(grows() for _ in range(4)))
    assert buffers.try_take(100)
