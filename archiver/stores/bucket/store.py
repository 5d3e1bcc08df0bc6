"""A store in a bucket, whichever kind it is: uploads, and keeping house."""

from __future__ import annotations

import copy
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Protocol

from archiver.errors import StoreError
from archiver.observe.logs import logger
from archiver.runtime.buffers import Buffers
from archiver.runtime.cancellation import to_its_end
from archiver.stores import Advice, AtOnce, Digest, Listed, Pay
from archiver.stores.bucket.driver import Driver, Parts
from archiver.stores.bucket.objects import Objects
from archiver.stores.bucket.refusals import Refused
from archiver.stores.bucket.upload import PartsUpload, Usual
from archiver.stores.digesting import digest_of

log = logger(__name__)


class PartsSettings(Protocol):
    """How long objects are cut."""

    @property
    def part_size(self) -> int:
        """Bytes."""

    @property
    def parts_in_flight(self) -> int:
        """At a time."""


class BucketStore:
    """See `archiver.stores` for what it guarantees. `at` is its URL."""

    def __init__(self, at: str, driver: Driver, objects: Objects, settings: PartsSettings, buffers: Buffers) -> None:
        self.driver = driver
        self._at = at
        self.objects = objects
        self._settings = settings
        self._buffers = buffers
        self._usual = Usual(settings.part_size)
        self._stuck: list[tuple[Parts, bool]] = []

    def sharing(self, buffers: Buffers) -> BucketStore:
        shared = copy.copy(self)
        shared._buffers = buffers
        return shared

    @asynccontextmanager
    async def upload(self, key: str, *, part: str, movable: bool = False) -> AsyncIterator[PartsUpload]:
        part_key = self.objects.part_key(key, part)
        async with self._buffers.reserve(self._usual.bytes) as memory:
            upload = PartsUpload(
                self.driver,
                self.objects,
                key,
                part_key,
                memory,
                part_size=self._buffers.most(self._settings.part_size),
                usual=self._usual,
                parts_in_flight=self._settings.parts_in_flight,
                movable=movable,
                left_behind=self._left_behind,
            )
            try:
                yield upload
            finally:
                if not upload.dropped:
                    await to_its_end(upload.drop())

    def read(self, key: str) -> AsyncGenerator[bytes, None]:
        return self.objects.read(key)

    async def digests(self, objects: Sequence[tuple[str, int]], pay: Pay | None = None) -> list[Digest | StoreError]:
        return [await digest_of(self.read(key), expected, pay) for key, expected in objects]

    def at_once(self) -> AtOnce:
        return AtOnce(calls=16, small=1)

    async def size(self, key: str) -> int | None:
        return await self.objects.size(key)

    async def list(self, prefix: str = "", *, versions: bool = False) -> AsyncGenerator[Listed, None]:
        ours = self.objects.prefix
        with self.objects.translated(f"{self._at}{prefix}"):
            async with aclosing(self.driver.list(ours + prefix, versions=versions)) as found:
                async for each in found:
                    if not each.key.startswith(ours + prefix):
                        raise Refused(200, "NotAsked", f"the server lists {each.key!r} where {ours + prefix!r} was asked for")
                    if each.key == ours:  # a marker that some tools make for the folder itself
                        continue
                    yield replace(each, key=each.key[len(ours) :]) if ours else each

    async def discard(self, key: str, *, part: str, left_for: timedelta) -> bool:
        objects, left = self.objects, self.objects.part_key(key, part)
        with objects.translated(key):
            found = await objects.stored(left)
            if found:
                await objects.remove(objects.prefix + left)
            return await self.driver.sweep(key, left, left_for) or found

    async def check(self) -> str:
        for left in list(self._stuck):
            parts, aside = left
            try:
                await parts.take_back(aside=aside, interrupted=False)
            except Refused as refused:
                # Whether the store works, the trial alone decides.
                log.warning("upload_left_behind", store_key=parts.key, error=refused.code, message=refused.message)
            else:
                self._stuck.remove(left)  # only now: whatever else ends this check, the next one knows of it
        with self.objects.translated(self._at):
            await self.driver.trial.again()
        return f"{self._at} at {self.driver.endpoint}, overwrites nothing"

    async def free(self) -> None:
        return None

    async def longest_name(self) -> None:
        return None

    async def empty(self) -> bool:
        with self.objects.translated(self._at):
            return not any(name and not name.startswith(".") for name in await self.driver.first_names())

    async def advice(self) -> Sequence[Advice]:
        with self.objects.translated(self._at):
            return await self.driver.advice()

    def _left_behind(self, parts: Parts, aside: bool) -> None:
        """An upload that could not be taken back."""
        self._stuck.append((parts, aside))
