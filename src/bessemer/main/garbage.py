"""What no count of references frees is found by walks over what lives; while one goes on, everybody waits.

A control plane keeps most of what outlives its first moment: a fleet that it follows, who waits, what was placed. So
every object is looked at once, some thousands at a time, which takes a millisecond or a few, and what lives then is put
aside. Python's own way is to walk over all that came since the start again and again, ever longer: of 10,000 hosts and
100 placements a second, 50,000 objects every quarter of a minute, half a million every few minutes.

What is put aside is freed by its count as anything is. Circles of it (a placement leaves next to none, but each watch
some, when its connection ends) are found by a walk over everything in a quiet second once in an hour, or at the end of
the next one where none is quiet; in a process that has grown by half, and by a quarter of a gigabyte, within a minute
or two: whoever opens watches and breaks them off must not fill the machine meanwhile.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from prometheus_client.core import CounterMetricFamily, Metric

from bessemer.core.clock import Clock
from bessemer.main.process import busy, resident

YOUNG_MAX = 5_000
"""Objects made and not yet gone since the last walk."""
WHOLE_SECONDS = 3600.0
LOOK_SECONDS = 60.0
GROWN_BYTES = 256 << 20
"""Every so often it is looked whether the process has grown by so much, and by half."""
_WHOLE = 2
"""How the collector calls a walk over all generations."""


@dataclass(slots=True, eq=False)
class Walks:
    """Those of this process. A collector for ``CollectorRegistry.register``: plain figures, for a walk may begin while
    somebody counts something else and has that one's lock."""

    number: dict[str, int] = field(default_factory=lambda: {"young": 0, "all": 0})
    seconds: dict[str, float] = field(default_factory=lambda: {"young": 0.0, "all": 0.0})
    _began: float = 0.0

    def hear(self, phase: str, info: Mapping[str, Any]) -> None:
        """The collector begins or has ended a walk: put aside what lives."""
        if phase == "start":
            self._began = time.perf_counter()
            return
        of = "all" if info["generation"] == _WHOLE else "young"
        self.number[of] += 1
        self.seconds[of] += time.perf_counter() - self._began
        gc.freeze()

    def collect(self) -> Iterator[Metric]:
        """Every figure, as Prometheus wants it."""
        number = CounterMetricFamily("bessemer_garbage_walks", "Walks of the garbage collector.", labels=["of"])
        seconds = CounterMetricFamily(
            "bessemer_garbage_walk_seconds", "Seconds for which everything waited for them.", labels=["of"]
        )
        for of, count in self.number.items():
            number.add_metric([of], count)
            seconds.add_metric([of], self.seconds[of])
        yield number
        yield seconds


WALKS = Walks()


async def spare(clock: Clock) -> None:
    """For ever: look at each object once, and seldom at all of them."""
    before = gc.get_threshold()
    gc.set_threshold(YOUNG_MAX, *before[1:])
    gc.callbacks.append(WALKS.hear)
    try:
        while True:
            grown = await _due(clock)
            until = clock.monotonic() + (LOOK_SECONDS if grown else WHOLE_SECONDS)
            while await busy(clock) and clock.monotonic() < until:
                pass
            gc.unfreeze()
            gc.collect()
    finally:
        gc.callbacks.remove(WALKS.hear)
        gc.set_threshold(*before)


async def _due(clock: Clock) -> bool:
    """Return when a walk over everything is due; whether that is because the process has grown much."""
    least, until = resident(), clock.monotonic() + WHOLE_SECONDS
    while clock.monotonic() < until:
        await clock.sleep(LOOK_SECONDS)
        now = resident()
        if now > max(least + GROWN_BYTES, least * 3 // 2):
            return True
        least = min(least, now)
    return False
