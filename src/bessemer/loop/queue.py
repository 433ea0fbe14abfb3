"""Names that wait for a worker, and names that wait for their time.

Invariants: a name stands here once; while it is worked on, a signal only marks it, and `finish` puts it back unless the
work has already seen what the signal was about. Taking a name clears its timer: the work sets the next one. Kinds take
turns, and within a kind the tenants, so that ten thousand new names of one keep no name of another waiting. It keeps no
reasons and no objects.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import Literal

from bessemer.core.clock import Clock
from bessemer.core.resource import Key, tenant_of
from bessemer.core.turns import Turns
from bessemer.loop.metrics import KindMetrics

ALWAYS = sys.maxsize
"""The revision of a signal that no reading can have covered."""

Cause = Literal["again", "backoff", "resync"]

# Timers of this machine may ring a hair early; a name that is due within it is due.
_TOLERANCE_SECONDS = 0.001


class Queue:
    """FIFO by first signal within a tenant's of a kind; with a timer per name on the injected clock."""

    def __init__(self, clock: Clock, metrics: Mapping[str, KindMetrics]) -> None:
        self._clock = clock
        self._metrics = metrics
        self._names = Turns[Key]()
        self._ready = asyncio.Semaphore(0)
        self._since: dict[Key, float] = {}
        self._active: dict[Key, int] = {}
        self._timers: dict[Key, tuple[float, Cause]] = {}
        self._heap: list[tuple[float, int, Key]] = []
        self._order = itertools.count()
        self._alarm_at = float("inf")
        self._alarms: set[asyncio.Task[None]] = set()
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._turned = asyncio.Event()

    def add(self, key: Key, revision: int = ALWAYS) -> None:
        """Signal a name. ``revision`` is that of its own change, so that work which has read it needs no other turn."""
        if key in self._active:
            self._active[key] = max(self._active[key], revision)
            self._metrics[key.kind].held_back.inc()
        elif key not in self._since:
            self._since[key] = self._clock.monotonic()
            self._metrics[key.kind].depth.inc()
            self._quiet.clear()
            self._names.add(key, group=key.kind, member=tenant_of(key.namespace))
            self._ready.release()

    def later(self, key: Key, seconds: float, *, cause: Cause) -> None:
        """Signal the name after ``seconds``, in place of what was set before."""
        due = self._clock.monotonic() + seconds
        self._timers[key] = (due, cause)
        heappush(self._heap, (due, next(self._order), key))
        if due < self._alarm_at:
            self._set_alarm(due)

    async def take(self) -> tuple[Key, float]:
        """The next name, and the seconds that it waited. Its taker calls `finish`."""
        await self._ready.acquire()
        key = self._names.take()
        now = self._clock.monotonic()
        waited = now - self._since.pop(key)
        self._active[key] = 0
        self._timers.pop(key, None)
        self._metrics[key.kind].depth.dec()
        self._metrics[key.kind].busy.inc()
        return key, waited

    def finish(self, key: Key, seen: int) -> None:
        """The work is over and has taken every change up to revision ``seen`` into account."""
        self._turned.set()
        self._metrics[key.kind].busy.dec()
        if self._active.pop(key) > seen:
            self.add(key)
        elif not self._active and not self._since:
            self._quiet.set()

    def forget(self, key: Key) -> None:
        """The object is gone: nothing is due any more."""
        self._timers.pop(key, None)

    def __len__(self) -> int:
        return len(self._since)

    async def quiet(self) -> None:
        """Return when no name waits for a worker and none is worked on; timers don't count."""
        await self._quiet.wait()

    async def rest(self) -> None:
        """Return when no name is worked on, whatever waits."""
        while self._active:
            self._turned.clear()
            await self._turned.wait()

    def close(self) -> None:
        for task in self._alarms:
            task.cancel()

    # At most a few alarms sleep at a time: a new one only where a name is due before the earliest, and the later one
    # that it overtakes finds nothing to do.
    def _set_alarm(self, due: float) -> None:
        self._alarm_at = due
        task = asyncio.create_task(self._ring(due))
        self._alarms.add(task)
        task.add_done_callback(self._alarms.discard)

    async def _ring(self, due: float) -> None:
        await self._clock.sleep(max(0.0, due - self._clock.monotonic()))
        if due == self._alarm_at:
            self._fire(self._clock.monotonic() + _TOLERANCE_SECONDS)

    def _fire(self, now: float) -> None:
        while self._heap and self._heap[0][0] <= now:
            due, _, key = heappop(self._heap)
            timer = self._timers.get(key)
            # A name whose timer was set anew has an older entry here; the newer one counts.
            if timer is None or timer[0] != due:
                continue
            del self._timers[key]
            if timer[1] == "resync":
                self._metrics[key.kind].resyncs.inc()
            self.add(key)
        if len(self._heap) > 64 + 4 * len(self._timers):
            self._heap = [(self._timers[k][0], n, k) for at, n, k in self._heap if self._is_current(k, at)]
            heapify(self._heap)
        self._alarm_at = float("inf")
        if self._heap:
            self._set_alarm(self._heap[0][0])

    def _is_current(self, key: Key, due: float) -> bool:
        timer = self._timers.get(key)
        return timer is not None and timer[0] == due


@dataclass(eq=False)
class Backoff:
    """How long a name waits after the n-th failure in a row: exponential, in seconds from ``first`` to ``most``.

    Jitter takes up to half of it away, so that what failed together does not come back together.
    """

    first: float
    most: float
    jitter: Callable[[], float] = random.random
    _failures: dict[Key, int] = field(default_factory=dict, init=False)

    def next(self, key: Key) -> float:
        """Seconds to wait now, after one more failure."""
        count = self._failures.get(key, 0)
        self._failures[key] = count + 1
        longest = min(self.most, self.first * 2.0 ** min(count, 60))
        return longest * (0.5 + 0.5 * self.jitter())

    def failures(self, key: Key) -> int:
        return self._failures.get(key, 0)

    def reset(self, key: Key) -> None:
        self._failures.pop(key, None)
