"""Where a read runs: `Here`, in the event loop, or `Apart`, in threads, where each statement waits for a network.

A call that runs apart has its connection until it returns: who waits for it and is cancelled waits all the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import ClassVar, Protocol, TypeVar

T = TypeVar("T")


class Turn(Protocol):
    """How a call gets its turn."""

    @property
    def remote(self) -> bool: ...
    @property
    def idle(self) -> int:
        """Connections kept for the next read that wants one."""

    @property
    def room(self) -> AbstractAsyncContextManager[object]:
        """Entered for as long as a longer read has a connection."""

    async def do(self, call: Callable[[], T]) -> T:
        """What the call answers, or raises."""

    def later(self, call: Callable[[], object]) -> None:
        """Have it done, waiting for nothing."""

    def close(self) -> None:
        """Finish what was begun."""


class Here:
    """In the event loop, at once. Each connection holds pages and files; opening one takes a millisecond."""

    remote: ClassVar[bool] = False
    idle: ClassVar[int] = 4
    room: ClassVar[AbstractAsyncContextManager[object]] = nullcontext()

    async def do(self, call: Callable[[], T]) -> T:
        return call()

    def later(self, call: Callable[[], object]) -> None:
        call()

    def close(self) -> None:
        """There is nothing to finish."""


class Apart:
    """In one of a few threads; of longer reads twice as many go on by turns. A server has few connections."""

    remote: ClassVar[bool] = True

    def __init__(self, threads: int) -> None:
        self.idle = 2 * threads
        self.room = asyncio.Semaphore(2 * threads)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="store-reader")

    async def do(self, call: Callable[[], T]) -> T:
        job = asyncio.get_running_loop().run_in_executor(self._threads, call)
        try:
            return await asyncio.shield(job)
        except asyncio.CancelledError:
            while not job.done():
                try:
                    await asyncio.wait([job])
                except asyncio.CancelledError:
                    continue
            if not job.cancelled():
                job.exception()  # looked at: nobody else will
            raise

    def later(self, call: Callable[[], object]) -> None:
        self._threads.submit(call)

    def close(self) -> None:
        self._threads.shutdown()
