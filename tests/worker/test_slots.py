from __future__ import annotations

import asyncio
from contextlib import suppress

from archiver.worker.slots import Slots


class Holder:
    """Takes a slot, and gives it back when told to."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self.has = False
        self._go = asyncio.Event()
        self.task = asyncio.create_task(self._hold())

    async def _hold(self) -> None:
        async with self._slots:
            self.has = True
            await self._go.wait()

    async def leave(self) -> None:
        self._go.set()
        await self.task

    async def cancel(self) -> None:
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def holders(slots: Slots, count: int) -> list[Holder]:
    made = [Holder(slots) for _ in range(count)]
    await turns()
    return made


async def test_first_come_first_served() -> None:
    slots = Slots(2)
    one, two, three, four = await holders(slots, 4)
    assert ([each.has for each in (one, two, three, four)], slots.in_use, slots.waiting) == ([True, True, False, False], 2, 2)
    await two.leave()
    await turns()
    assert (three.has, four.has) == (True, False)


async def test_more_slots_are_given_at_once() -> None:
    slots = Slots(1)
    made = await holders(slots, 4)
    slots.resize(3)
    await turns()
    assert ([each.has for each in made], slots.waiting) == ([True, True, True, False], 1)


async def test_fewer_slots_end_nobody_and_are_given_to_nobody_until_they_are_free() -> None:
    slots = Slots(3)
    one, two, three, four = await holders(slots, 4)
    slots.resize(1)
    await one.leave()
    await two.leave()
    await turns()
    assert (three.has, four.has, slots.in_use) == (True, False, 1)
    await three.leave()
    await turns()
    assert (four.has, slots.in_use) == (True, 1)


async def test_who_is_cancelled_leaves_no_slot_behind() -> None:
    slots = Slots(1)
    one, two, three = await holders(slots, 3)
    await two.cancel()
    assert slots.waiting == 1
    await one.leave()
    await turns()
    assert three.has
    await three.cancel()
    assert (slots.in_use, slots.waiting) == (0, 0)


async def test_who_is_cancelled_in_the_moment_of_being_given_a_slot_gives_it_on() -> None:
    slots = Slots(1)
    async with slots:
        two, three = await holders(slots, 2)
    two.task.cancel()  # it was given the slot just now, and has not run since
    await turns()
    assert (two.has, three.has, slots.in_use) == (False, True, 1)
