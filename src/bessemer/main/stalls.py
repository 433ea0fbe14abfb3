"""Who held up the event loop: a thread looks on, and notes where the loop is while a turn takes long.

Everybody waits meanwhile, so it is told in the log with the innermost calls, and counted. A machine that gives the
process no turn looks the same, but is met anywhere; what holds up the loop by itself is met at one place again.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import structlog
from prometheus_client.core import CounterMetricFamily, Metric

import bessemer
from bessemer.core.clock import Clock

LOOK_SECONDS = 0.1
LONG_SECONDS = 0.25
"""From how long on a turn is told."""
APART_SECONDS = 10.0
"""Between two lines of the log; all are counted."""
CALLS = 6

_ROOT = Path(bessemer.__file__).parent

log = structlog.get_logger(__name__)


class Stalls:
    """Of the event loop in which it runs. A collector for ``CollectorRegistry.register``."""

    def __init__(self, clock: Clock) -> None:
        self.number = 0
        self.seconds = 0.0
        self._clock = clock
        self._loop_thread = 0
        self._turned = 0.0
        self._seen: tuple[float, list[str]] | None = None
        """Since when it stood, and where."""
        self._quiet_until = 0.0

    async def run(self) -> None:
        """Look on, for ever."""
        self.begin()
        end = threading.Event()
        thread = threading.Thread(target=self._work, args=(end,), name="stalls", daemon=True)
        thread.start()
        try:
            while True:
                await self._clock.sleep(LOOK_SECONDS)
                self.turned()
        finally:
            end.set()
            thread.join()

    def begin(self) -> None:
        """In the loop's thread: from now on."""
        self._loop_thread, self._turned = threading.get_ident(), self._clock.monotonic()

    def turned(self) -> None:
        """The loop has come around."""
        now, seen, before = self._clock.monotonic(), self._seen, self._turned
        self._turned, self._seen = now, None
        if seen is None or seen[0] != before:
            return
        self.number += 1
        self.seconds += now - before
        if now >= self._quiet_until:
            self._quiet_until = now + APART_SECONDS
            log.warning("the event loop was held up", seconds=round(now - before, 3), at=seen[1])

    def look(self) -> None:
        """In another thread: note where the loop is, if it has not come around for long."""
        since = self._turned
        if self._seen is None and self._clock.monotonic() - since >= LONG_SECONDS:
            self._seen = since, calls(sys._current_frames().get(self._loop_thread))

    def collect(self) -> Iterator[Metric]:
        """Every figure, as Prometheus wants it."""
        words = f"Turns of the event loop of {LONG_SECONDS} s and more"
        yield CounterMetricFamily("bessemer_event_loop_stalls", f"{words}.", value=self.number)
        yield CounterMetricFamily("bessemer_event_loop_stall_seconds", f"{words}: what they took.", value=self.seconds)

    def _work(self, end: threading.Event) -> None:
        while not end.wait(LOOK_SECONDS):
            self.look()


def calls(frame: FrameType | None) -> list[str]:
    """The innermost calls that a thread is in, as ``store/leases.py:held:169``."""
    found: list[str] = []
    while frame is not None and len(found) < CALLS:
        path = Path(frame.f_code.co_filename)
        name = path.relative_to(_ROOT) if path.is_relative_to(_ROOT) else path.name
        found.append(f"{name}:{frame.f_code.co_name}:{frame.f_lineno}")
        frame = frame.f_back
    return found
