"""What the queue would say of a request that is not in line yet, for who plans: its place in the order, when it would
start, and who would make room for it. Nothing is joined, kept or told by it.

It takes a whole plan, on the loop that serves everybody. So `Forecasts` gives equal questions of one moment one answer,
and each tenant, and all of them together, a part of the time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace

from bessemer.core.clock import Clock, rfc3339
from bessemer.core.errors import TooMany
from bessemer.placement.facts import Hold
from bessemer.placement.queue import Pending

KEPT_SECONDS, KEPT_MAX = 5.0, 256
"""A forecast stands for so long where nothing changes, for times pass by themselves; and so many are kept."""

TENANT, ALL = (1.0, 0.02), (2.0, 0.1)
"""Seconds of planning at once, and in each second from then on: of a tenant, and of all together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreseen:
    """``ahead`` of ``waiting`` others go before it. ``start`` is when it starts at the latest, None where nobody knows:
    ``at_once``, or when the claims ``stops`` have made room for it, which are told where it asks, or others have ended.
    ``deep``: it is so far back in the order that nobody looks."""

    ahead: int
    waiting: int
    start: int | None
    at_once: bool = False
    deep: bool = False
    stops: Mapping[str, Hold] = field(default_factory=dict)

    @property
    def words(self) -> str:
        """When, and why not sooner."""
        before = f"; {self.ahead} of {self.waiting} that wait go before it" if self.waiting else ""
        if self.at_once:
            return f"at once{before}"
        if self.start is not None:
            return f"by {rfc3339(self.start)}{before}"
        why = "nobody looks so far ahead" if self.deep else "nobody knows when what it would wait for ends"
        return f"not known: {why}{before}"


@dataclass(slots=True)
class _Purse:
    """Seconds of planning that are left, at a moment (monotonic)."""

    left: float
    at: float


class Forecasts:
    """What was foreseen of late, and who may have how much more of it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: dict[Hashable, tuple[float, Foreseen]] = {}
        self._purses: dict[str, _Purse] = {}

    def of(self, pending: Pending, *, moment: Hashable, make: Callable[[], Foreseen]) -> Foreseen:
        """Of the fleet and of who waits as of the ``moment``; made where nobody asked the same of late. Raises TooMany
        where the tenant, or all together, have had their part of the time."""
        now, asker = self._clock.monotonic(), pending.asker
        # Who asks a second later would wait since then, and end then: no news within the time that it stands. Who would
        # run for longer asks something else: it may start later.
        lasts = None if asker.ends is None else asker.ends - int(self._clock.now())
        key = (moment, replace(asker, since=0, ends=None), lasts, pending.wants)
        known = self._known.get(key)
        if known is not None and now - known[0] < KEPT_SECONDS:
            return known[1]
        for name in [one for one, purse in self._purses.items() if one and _filled(purse, now=now)]:
            del self._purses[name]
        purses = [self._purse(pending.tenant, TENANT, now=now), self._purse("", ALL, now=now)]
        waits = [-purse.left / rate for purse, (_, rate) in zip(purses, (TENANT, ALL), strict=True) if purse.left <= 0]
        if waits:
            seconds = max(1, math.ceil(max(waits)))
            raise TooMany("Too much was asked of what would start when.", retry_after_seconds=seconds)
        try:
            found = make()
        finally:
            for purse in purses:
                purse.left -= self._clock.monotonic() - now
        self._known[key] = (now, found)
        while len(self._known) > KEPT_MAX:
            del self._known[next(iter(self._known))]
        return found

    def _purse(self, name: str, allowed: tuple[float, float], *, now: float) -> _Purse:
        """As full as it is by now."""
        purse = self._purses.setdefault(name, _Purse(allowed[0], now))
        purse.left, purse.at = min(allowed[0], purse.left + allowed[1] * (now - purse.at)), now
        return purse


def _filled(purse: _Purse, *, now: float) -> bool:
    """Whether a tenant's is, as one that nobody knows of would be."""
    return purse.left + TENANT[1] * (now - purse.at) >= TENANT[0]
