"""Time as a value that is handed in, so that no test waits for it."""

from __future__ import annotations

import asyncio
import functools
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """The three things that code may ask of time."""

    def now(self) -> float:
        """Seconds since the epoch, UTC. It may jump; nothing may measure a duration with it."""
        ...

    def monotonic(self) -> float:
        """Seconds from an arbitrary start. It never goes back; every deadline and backoff uses it."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after ``seconds`` of this clock."""
        ...


class SystemClock:
    """The machine's clock."""

    # Not wrapped: each is asked several times of every request.
    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class FakeClock:
    """A clock that stands still until ``advance`` moves it; ``jump`` moves only the wall clock."""

    def __init__(self, start: float = 1_750_000_000.0) -> None:
        self._wall_offset = start
        self._monotonic = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = 0

    def now(self) -> float:
        return self._wall_offset + self._monotonic

    def monotonic(self) -> float:
        return self._monotonic

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._count += 1
        self._sleepers.append((self._monotonic + seconds, self._count, future))
        await future

    async def advance(self, seconds: float) -> None:
        """Move both clocks, waking sleepers in order and letting each run before the next."""
        end = self._monotonic + seconds
        while True:
            await settle()
            due = sorted(s for s in self._sleepers if s[0] <= end and not s[2].done())
            if not due:
                break
            at, _, future = due[0]
            self._monotonic = max(self._monotonic, at)
            self._sleepers = [s for s in self._sleepers if s[2] is not future]
            future.set_result(None)
        self._monotonic = end
        self._sleepers = [s for s in self._sleepers if not s[2].done()]
        await settle()

    def jump(self, seconds: float) -> None:
        """Move the wall clock alone, as an administrator or a broken NTP does."""
        self._wall_offset += seconds


async def settle(rounds: int = 20) -> None:
    """Let every task that can run, run."""
    for _ in range(rounds):
        await asyncio.sleep(0)


def rfc3339(seconds: float) -> str:
    """``1750000000.7`` → ``2025-06-15T15:06:40Z``: whole seconds, as Kubernetes writes times."""
    return _second(int(seconds))


@functools.lru_cache(64)
def _second(whole: int) -> str:
    """Kept, since a write says the same second some three times, and so do hundreds beside it."""
    return datetime.fromtimestamp(whole, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def rfc3339_ms(seconds: float) -> str:
    """``1750000000.7`` → ``2025-06-15T15:06:40.700Z``: where a second is too coarse."""
    whole, micro = divmod(round(seconds * 1e6), 1_000_000)
    return f"{_second(whole)[:-1]}.{micro // 1000:03}Z"


def epoch(text: str) -> float:
    """The inverse of `rfc3339`; fractions and offsets are accepted. Raises ValueError for anything else."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
