"""What is counted of an endpoint that scales, and said to the api every other second (`core.loads`).

Each pool has a gauge; who scales has a target in it by which answers are judged. `Reporter` sends what all of them say
in one; at once where somebody waits for a replica and there is none.
"""

from __future__ import annotations

import asyncio
import math
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import structlog

from bessemer.core.clock import Clock
from bessemer.core.errors import BessemerError, Malformed, TooLarge
from bessemer.core.loads import (
    ALIVE_SECONDS,
    ENDPOINTS_MAX,
    REPORT_SECONDS,
    SUMS,
    EndpointLoad,
    EndpointLog,
    LoadReport,
)

if TYPE_CHECKING:
    from bessemer.gateway.tables import EndpointEntry

WAKE_SECONDS = 120.0
"""For which a request is held, where an Endpoint that scales does not say: the default of its kind."""
SEND_SECONDS = 5.0
"""That a report may take: the next one says more."""

_log = structlog.get_logger("gateway.gauge")


class Gauge:
    """Of one pool. ``wake_seconds`` is for how long a request is held where no replica is there; 0 where it does not
    scale, and nothing is counted."""

    __slots__ = (*SUMS, "called", "first_most", "held", "pace_most", "said", "wake_seconds")

    arrived: int
    answered: int
    input_tokens: int
    output_tokens: int
    begun: int
    late: int
    first_seconds: float
    paced: int
    slow: int
    paced_tokens: int
    paced_seconds: float

    def __init__(self) -> None:
        for name in SUMS:
            setattr(self, name, 0)
        self.wake_seconds = 0.0
        self.first_most = self.pace_most = math.inf
        self.held = 0
        """Requests that wait for a first replica."""
        self.called = False
        """Whether somebody asked since the last report, and no replica was there."""
        self.said: tuple[float, ...] = ()
        """What was said last, and how many were busy and waiting."""

    def follow(self, scale: Mapping[str, Any] | None) -> None:
        """Judge by what an Endpoint says of its scale; None where it says nothing."""
        self.wake_seconds = float(scale.get("wakeSeconds", WAKE_SECONDS)) if scale else 0.0
        target = (scale or {}).get("target") or {}
        self.first_most = (target.get("ttftMs") or math.inf) / 1000.0
        self.pace_most = (target.get("interTokenMs") or math.inf) / 1000.0

    def ended(self, *, reads: int, writes: int, first: float | None, whole: float) -> None:
        """An answer was given, its first token after so many seconds of ``whole``; None where it was no stream, of
        which nobody knows that."""
        self.answered += 1
        self.input_tokens += reads
        self.output_tokens += writes
        if first is None:
            return
        self.begun += 1
        self.first_seconds += first
        self.late += first > self.first_most
        if writes > 1:
            took = whole - first
            self.paced += 1
            self.paced_tokens += writes - 1
            self.paced_seconds += took
            self.slow += took / (writes - 1) > self.pace_most

    def sums(self) -> tuple[float, ...]:
        return tuple(round(getattr(self, name), 6) for name in SUMS)


class Reporter:
    """Says what is asked of the ``places`` of a gateway. ``send`` raises BessemerError where the api is away: then what
    runs on is said with the next report."""

    def __init__(
        self,
        places: Callable[[], Iterable[EndpointEntry]],
        send: Callable[..., Awaitable[None]],
        *,
        holder: str,
        clock: Clock,
        logs: Callable[[], list[EndpointLog]] = list,
    ) -> None:
        self._places = places
        self._logs = logs
        self._said_logs: list[tuple[str, str, int]] = []
        self._send = send
        self._holder = holder
        self._clock = clock
        self._boot = uuid.uuid4().hex
        self._sent_at = -math.inf
        self._soon = asyncio.Event()
        self._said_anything = False

    def soon(self) -> None:
        """Somebody waits for a replica, and there is none: say so at once."""
        self._soon.set()

    async def run(self) -> None:
        """Say it, for ever."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(REPORT_SECONDS):
                    await self._soon.wait()
            self._soon.clear()
            await self.say()

    async def say(self, *, last: bool = False) -> None:
        """Once, if there is anything to be said."""
        report, changed = self._report()
        now = self._clock.monotonic()
        if last:
            if not self._said_anything:
                return
        elif not changed and (not (report.loads or report.logs) or now - self._sent_at < ALIVE_SECONDS):
            return
        self._sent_at, self._said_anything = now, True
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await self._sent(report, last=last)
        except (BessemerError, TimeoutError) as error:
            _log.info("what is asked cannot be said", error=str(error))

    async def _sent(self, report: LoadReport, *, last: bool) -> None:
        try:
            await self._send(report, last=last)
        except (Malformed, TooLarge):
            if not report.logs:
                raise
            # A replica of an older release knows nothing of prompts that are logged; and of very many less is told.
            await self._send(report.model_copy(update={"logs": []}), last=last)

    def _report(self) -> tuple[LoadReport, bool]:
        loads: list[EndpointLoad] = []
        asleep: list[int] = []
        changed = False
        for place in self._places():
            pool, gauge = place.pool, place.pool.gauge
            if not gauge.wake_seconds or len(loads) >= ENDPOINTS_MAX:
                continue
            sums, busy, waiting = gauge.sums(), pool.busy, pool.waiting.count + gauge.held
            said = (*sums, busy, waiting)
            changed = changed or said != gauge.said or gauge.called or bool(busy or waiting)
            gauge.said = said
            if (gauge.held or gauge.called) and not pool.replicas:
                asleep.append(len(loads))
            gauge.called = False
            loads.append(
                EndpointLoad(
                    project=place.project, name=place.name, uid=place.uid, busy=busy, waiting=waiting, sums=sums
                )
            )
        logs = self._logs()[:ENDPOINTS_MAX]
        said_logs = [(log.uid, log.reason, log.dropped) for log in logs]
        changed = changed or said_logs != self._said_logs
        self._said_logs = said_logs
        return LoadReport(holder=self._holder, boot=self._boot, loads=loads, asleep=asleep, logs=logs), changed
