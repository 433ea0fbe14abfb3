"""`Demand`: what is asked for, learned from claims, and what follows from it for who decides.

Prices and plans are linear programs: they are derived in a thread, of values that nobody else holds, at a bounded pace
and only when something else is asked for than before; decisions go on with the last ones. Where a program does not end
well that is logged, and the last prices stay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

import structlog

from bessemer.core.clock import Clock
from bessemer.placement import FleetArrays, Hold
from bessemer.placement.demand import Arrivals, Mix, Outlook
from bessemer.placement.hostclass import HostClass
from bessemer.placement.own import Own, classes, devices
from bessemer.placement.vectors import WHOLE

PACE_SECONDS = 15.0
"""Between two looks at what is asked for. Whoever decides by another outlook makes each cost anew."""

ANOTHER = 0.05
"""What is asked for is something else once this part of it is."""

GROWN = 0.01
"""So is the fleet, once this part of its hosts came, went or became of another class."""

Derive = Callable[[Mix, Mapping[HostClass, int]], Awaitable[Outlook]]

log = structlog.get_logger(__name__)


async def in_thread(mix: Mix, hosts: Mapping[HostClass, int]) -> Outlook:
    """Beside the event loop, which has better to do."""
    return await asyncio.to_thread(Outlook.derive, mix, hosts)


class Demand:
    """``own`` decides by what is learned here."""

    def __init__(self, arrays: FleetArrays, clock: Clock, *, derive: Derive = in_thread, order: str = "") -> None:
        self.own = Own(arrays, order=order, patient=True)
        self._arrays = arrays
        self._clock = clock
        self._derive = derive
        self._arrivals = Arrivals()
        self._stirred = asyncio.Event()
        self._hosts: Mapping[HostClass, int] = {}

    def began(self, hold: Hold, *, before: bool = False) -> None:
        """A claim is new; or it was there ``before`` anybody looked, and says nothing of what ended meanwhile."""
        # No price of an instance follows from those of shares and of whole devices.
        if hold.shape is not None and not hold.profile:
            self._arrivals.saw(hold.shape)
            self._stirred.set()
        if not before:
            self.own.turnover.took(_milli(hold))

    def ended(self, hold: Hold) -> None:
        """A claim is gone."""
        self.own.turnover.gave_back(_milli(hold))
        self._stirred.set()

    def hosts_changed(self) -> None:
        """There may be other hosts than before."""
        self._stirred.set()

    async def run(self) -> None:
        """Look whenever something may be another, for ever."""
        while True:
            await self._stirred.wait()
            await self._clock.sleep(PACE_SECONDS)
            self._stirred.clear()
            await self._look()

    async def _look(self) -> None:
        self.own.turnover.resize(devices(self._arrays))
        mix, hosts = self._arrivals.mix(), classes(self._arrays)
        last, outlook = self.own.outlook, None
        if mix.shapes and (mix.distance(last.mix) >= ANOTHER or _moved(self._hosts, hosts) >= GROWN):
            outlook = await self._outlook(mix, hosts)
            if outlook is not None:
                self._hosts = hosts
                log.info(
                    "outlook derived", shapes=len(mix.shapes), classes=len(hosts), turnover=self.own.turnover.ratio
                )
        if self.own.behind or outlook is not None:
            for _ in self.own.turn_to(outlook or last):
                await asyncio.sleep(0)

    async def _outlook(self, mix: Mix, hosts: Mapping[HostClass, int]) -> Outlook | None:
        """None where none could be derived."""
        try:
            outlook = await self._derive(mix, hosts)
        except (ArithmeticError, ImportError, LookupError, RuntimeError, TypeError, ValueError) as error:
            log.error("no outlook could be derived", shapes=len(mix.shapes), error=str(error)[:500])
            return None
        if not outlook.solved:
            log.warning("prices of shares could not be derived", sizes=len(mix.shares))
            return replace(outlook, waste=self.own.outlook.waste)
        return outlook


def _moved(before: Mapping[HostClass, int], now: Mapping[HostClass, int]) -> float:
    """Which part of the hosts is not what it was."""
    other = sum(abs(before.get(kind, 0) - now.get(kind, 0)) for kind in before.keys() | now.keys())
    return other / max(1, sum(now.values()))


def _milli(hold: Hold) -> int:
    """Thousandths of devices, all together."""
    if hold.profile:
        return hold.milli
    return hold.shape.milli if hold.shape is not None else WHOLE * len(hold.devices)
