"""Where a read runs: `Here`, in the event loop, or `Apart`, in threads, where each statement waits for a network.

A call that runs apart has its connection until it returns: who waits for it and is cancelled waits all the same, unless
it has not begun; what it then answers is taken back. As many as wait for a thread are taken on, and no more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from typing import ClassVar, Protocol, TypeVar

from bessemer.core.errors import Unavailable

PENDING_MAX = 4_096

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

    async def do(self, call: Callable[[], T], *, undo: Callable[[T], object] | None = None) -> T:
        """What the call answers, or raises; ``undo`` has it where nobody waits for it any more. Raises Unavailable
        where more wait than are taken on."""

    def later(self, call: Callable[[], object]) -> None:
        """Have it done, waiting for nothing."""

    def close(self) -> None:
        """Finish what was begun."""


class Here:
    """In the event loop, each call in a turn of its own: the steps of a longer read leave room for who asks for little.
    Each connection holds pages and files; opening one takes a millisecond."""

    remote: ClassVar[bool] = False
    idle: ClassVar[int] = 4
    room: ClassVar[AbstractAsyncContextManager[object]] = nullcontext()

    async def do(self, call: Callable[[], T], *, undo: Callable[[T], object] | None = None) -> T:
        await asyncio.sleep(0)
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
        self._pending = 0
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="store-reader")

    async def do(self, call: Callable[[], T], *, undo: Callable[[T], object] | None = None) -> T:
        if self._pending >= PENDING_MAX:
            raise Unavailable("more reads wait than the store takes on; try again")
        try:
            job = self._threads.submit(call)
        except RuntimeError as error:
            raise Unavailable("the store is closed") from error
        self._pending += 1
        done = asyncio.wrap_future(job)
        try:
            return await asyncio.shield(done)
        except asyncio.CancelledError:
            if not job.cancel():
                await _ended(done)
                if not done.cancelled() and done.exception() is None and undo is not None:
                    self.later(partial(undo, done.result()))
            raise
        finally:
            self._pending -= 1

    def later(self, call: Callable[[], object]) -> None:
        try:
            self._threads.submit(call)
        except RuntimeError:  # the store is closed
            call()

    def close(self) -> None:
        self._threads.shutdown()


async def _ended(job: asyncio.Future[T]) -> None:
    """Return when it has ended, whoever else is in a hurry."""
    while not job.done():
        try:
            await asyncio.wait([job])
        except asyncio.CancelledError:
            continue
