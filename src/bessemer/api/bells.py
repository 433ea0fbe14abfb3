"""Bells: what thousands of open streams wait for, with a task for each thing that is waited for, not for each stream.

A bell rings once, in the event loop, and what it calls must not take long. It knows nothing of who asks.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from itertools import count

from bessemer.core.clock import Clock

Ring = Callable[[], object]


class Bell:
    """Rings once, unless it is silenced before."""

    __slots__ = ("_ring", "_silenced")

    def __init__(self, ring: Ring, silenced: Ring) -> None:
        self._ring: Ring | None = ring
        self._silenced: Ring | None = silenced

    def silence(self) -> None:
        """It rings no more."""
        silenced, self._ring, self._silenced = self._silenced, None, None
        if silenced is not None:
            silenced()

    def ring(self) -> None:
        """Call who asked for it."""
        ring = self._ring
        self.silence()
        if ring is not None:
            ring()


class Bells:
    """Those of one api: by its clock, and by events."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._count = count()
        self._timed: list[tuple[float, int, Bell]] = []
        self._open = 0
        """Of the timed ones those that may ring yet."""
        self._due = 0.0
        self._sleeper: asyncio.Future[None] | None = None
        self._waiting: dict[asyncio.Event, tuple[set[Bell], asyncio.Future[None]]] = {}

    def __len__(self) -> int:
        """Those that may ring yet."""
        return self._open + sum(len(bells) for bells, _ in self._waiting.values())

    def after(self, seconds: float, ring: Ring) -> Bell:
        """Ring so many seconds from now."""
        bell = Bell(ring, self._rested)
        due = self._clock.monotonic() + seconds
        heapq.heappush(self._timed, (due, next(self._count), bell))
        self._open += 1
        if self._sleeper is None or due < self._due:
            self._rest()
            self._due, self._sleeper = due, asyncio.ensure_future(self._sleep())
        return bell

    def when(self, event: asyncio.Event, ring: Ring) -> Bell:
        """Ring once the event is set, a turn of the loop later."""
        bell = Bell(ring, lambda: self._forget(event, bell))
        if event not in self._waiting:
            self._waiting[event] = (set(), asyncio.ensure_future(self._wait(event)))
        self._waiting[event][0].add(bell)
        return bell

    async def _sleep(self) -> None:
        """Until none is left that may ring."""
        while self._timed:
            self._due = self._timed[0][0]
            await self._clock.sleep(self._due - self._clock.monotonic())
            while self._timed and self._timed[0][0] <= self._clock.monotonic():
                heapq.heappop(self._timed)[2].ring()

    def _rested(self) -> None:
        self._open -= 1
        if not self._open:
            self._timed.clear()
            self._rest()

    def _rest(self) -> None:
        if self._sleeper is not None:
            self._sleeper.cancel()
            self._sleeper = None

    async def _wait(self, event: asyncio.Event) -> None:
        await event.wait()
        for bell in list(self._waiting[event][0]):
            bell.ring()

    def _forget(self, event: asyncio.Event, bell: Bell) -> None:
        bells, waiter = self._waiting[event]
        bells.discard(bell)
        if not bells:
            del self._waiting[event]
            waiter.cancel()
