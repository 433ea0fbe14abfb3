"""Simulated time: hours pass in seconds, and nothing that could run is ever passed over.

`SimClock.pass_time` wakes sleepers in order, those within a second of each other together, and between two wakings
waits until nothing can move by itself any more: no task is ready, and no call to the store is under way (`Traffic`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from heapq import heappop, heappush
from inspect import iscoroutinefunction
from typing import Any

from bessemer.core.clock import FakeClock

GRAIN_SECONDS = 1.0


class Traffic:
    """How many calls are under way in another thread."""

    def __init__(self) -> None:
        self._count = 0
        self._less = asyncio.Event()

    def counted(self, port: Any) -> Any:
        """The port with every call of it counted."""
        return _Counted(port, self)

    async def settle(self) -> None:
        """Return when nothing can move by itself."""
        loop: Any = asyncio.get_running_loop()
        quiet = 0
        while quiet < 3:
            await asyncio.sleep(0)
            if loop._ready:
                quiet = 0
            elif self._count:
                quiet = 0
                self._less.clear()
                await self._less.wait()
            else:
                quiet += 1

    async def call(self, work: Callable[[], Any]) -> Any:
        self._count += 1
        try:
            return await work()
        finally:
            self._count -= 1
            self._less.set()


class _Counted:
    def __init__(self, port: Any, traffic: Traffic) -> None:
        self._port = port
        self._traffic = traffic

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._port, name)
        if not iscoroutinefunction(value):
            return value

        async def call(*args: Any, **kwargs: Any) -> Any:
            return await self._traffic.call(lambda: value(*args, **kwargs))

        self.__dict__[name] = call
        return call


class Inline(ThreadPoolExecutor):
    """Runs at once what is handed to a thread, so that a run depends on its seed alone."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


class SimClock(FakeClock):
    """A fake clock for thousands of sleepers."""

    def __init__(self, traffic: Traffic) -> None:
        super().__init__()
        self._traffic = traffic
        self._heap: list[tuple[float, int, asyncio.Future[None]]] = []
        self.wakings = 0

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._count += 1
        heappush(self._heap, (self._monotonic + seconds, self._count, future))
        await future

    async def advance(self, seconds: float) -> None:
        await self.pass_time(seconds)

    async def pass_time(self, seconds: float) -> None:
        """Move both clocks."""
        end = self._monotonic + seconds
        await self._traffic.settle()
        while self._heap and self._heap[0][0] <= end:
            at, _, future = heappop(self._heap)
            if future.done():
                continue
            self._monotonic = max(self._monotonic, at)
            self._wake(future)
            while self._heap and self._heap[0][0] <= min(at + GRAIN_SECONDS, end):
                at_next, _, another = heappop(self._heap)
                self._monotonic = max(self._monotonic, at_next)
                self._wake(another)
            await self._traffic.settle()
        self._monotonic = end

    def _wake(self, future: asyncio.Future[None]) -> None:
        if not future.done():
            self.wakings += 1
            future.set_result(None)


async def drained(source: AsyncIterator[Any], put: Callable[[Any], None]) -> None:
    """Hand on what a watch brings; what ends it comes last."""
    try:
        async for item in source:
            put(item)
    except Exception as error:
        put(error)
