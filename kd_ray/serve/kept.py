"""A value that takes long to read, kept for those who ask next."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

FRESH_S = 2.0
"""A value is not read again before it is this old."""
SHARE = 0.25
"""Part of the time that may be spent on reading: a value that takes 2 s to read is read at most every 8 s."""
STALE_S = 30.0
"""An older value is not shown; who asks waits until it has been read again. A younger one is shown while it is read again."""


class Kept(Generic[T]):
    """One value. It is read in a thread, by one reader at a time, however many ask."""

    def __init__(self, read: Callable[[T | None], T], *, clock: Callable[[], float] = time.monotonic) -> None:
        """`read` gets the value before, and may return it."""
        self._read = read
        self._clock = clock
        self._value: T | None = None
        self._read_at = 0.0
        self._took_s = 0.0
        self._reading: asyncio.Task[T] | None = None

    async def get(self) -> T:
        """The value, at most `STALE_S` old when the reading began.

        Raises:
            KdRayError: it cannot be read.
        """
        age_s = self._clock() - self._read_at
        if self._value is not None and age_s < max(FRESH_S, self._took_s / SHARE):
            return self._value
        reading = self._begin()
        if self._value is not None and age_s < max(STALE_S, 4 * self._took_s / SHARE):
            return self._value
        return await asyncio.shield(reading)

    def _begin(self) -> "asyncio.Task[T]":
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._renew())
            # An error is for those who wait; if nobody does, the next one who asks reads again.
            self._reading.add_done_callback(lambda task: None if task.cancelled() else task.exception())
        return self._reading

    async def _renew(self) -> T:
        began = self._clock()
        value = await asyncio.to_thread(self._read, self._value)
        self._value, self._read_at, self._took_s = value, self._clock(), self._clock() - began
        return value


class KeptByName(Generic[T]):
    """Some values by name; those that nobody has asked for longest are forgotten."""

    def __init__(self, read: Callable[[str, T | None], T], *, most: int) -> None:
        self._read = read
        self._most = most
        self._kept: OrderedDict[str, Kept[T]] = OrderedDict()

    async def get(self, name: str) -> T:
        """The value of a name.

        Raises:
            KdRayError: it cannot be read.
        """
        if name not in self._kept:
            self._kept[name] = Kept(lambda before: self._read(name, before))
        self._kept.move_to_end(name)
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)
        return await self._kept[name].get()
