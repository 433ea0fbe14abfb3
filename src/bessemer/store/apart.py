"""Where a read runs: `Here`, in the event loop, or `Apart`, in threads, where each statement waits for a network.

A call that runs apart has its connection until it returns: who waits for it and is cancelled waits all the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar, Protocol, TypeVar

T = TypeVar("T")


class Turn(Protocol):
    """How a call gets its turn."""

    @property
    def remote(self) -> bool: ...

    async def do(self, call: Callable[[], T]) -> T:
        """What the call answers, or raises."""

    def later(self, call: Callable[[], object]) -> None:
        """Have it done, waiting for nothing."""

    def close(self) -> None:
        """Finish what was begun."""


class Here:
    """In the event loop, at once."""

    remote: ClassVar[bool] = False

    async def do(self, call: Callable[[], T]) -> T:
        return call()

    def later(self, call: Callable[[], object]) -> None:
        call()

    def close(self) -> None:
        """There is nothing to finish."""


class Apart:
    """In one of a few threads."""

    remote: ClassVar[bool] = True

    def __init__(self, threads: int) -> None:
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
