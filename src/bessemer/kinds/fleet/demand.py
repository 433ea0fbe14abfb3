"""`Demand`: what is asked for, learned from claims, and what follows from it for who decides. Who waits for a place is
counted beside them, and while there are few what is offered (`placement.demand.unplaced`).

Prices and plans are linear programs: they are derived in a thread, of values that nobody else holds, at a bounded pace
and only when something else is asked for than before; decisions go on with the last ones. Where a program does not end
well that is logged, and the last prices stay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

import structlog

from bessemer.core.asking import Request
from bessemer.core.clock import Clock
from bessemer.placement import FleetArrays, Hold
from bessemer.placement.demand import Arrivals, Mix, Outlook, Unplaced
from bessemer.placement.hostclass import HostClass
from bessemer.placement.own import Own, classes, devices
from bessemer.placement.queue import Pending
from bessemer.placement.shape import Shape
from bessemer.placement.vectors import WHOLE

PACE_SECONDS = 15.0
"""Between two looks at what is asked for. Whoever decides by another outlook makes each cost anew."""

ANOTHER = 0.05
"""What is asked for is something else once this part of it is."""

GROWN = 0.01
"""So is the fleet, once this part of its hosts came, went or became of another class."""

OTHERS_SECONDS = 300.0
"""For who waits and what is offered alone, nothing is derived sooner after the last time: these come and go as people
like, and cost them nothing."""

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
        self._unplaced = Unplaced()
        self._seen = Mix()
        self._others_from = 0.0
        self._stirred = asyncio.Event()
        self._hosts: Mapping[HostClass, int] = {}

    def began(self, hold: Hold, *, before: bool = False) -> None:
        """A claim is new; or it was there ``before`` anybody looked, and says nothing of what ended meanwhile."""
        # No price of an instance follows from those of shares and of whole devices.
        if hold.shape is not None and not hold.device_profile:
            self._arrivals.saw(hold.shape)
            self._stirred.set()
        if not before:
            self._unplaced.leaves(hold.tenure.workload)
            self.own.turnover.took(_milli(hold))

    def ended(self, hold: Hold) -> None:
        """A claim is gone."""
        self.own.turnover.gave_back(_milli(hold))
        self._stirred.set()

    def waits(self, uid: str, pending: Pending | None) -> None:
        """What it waits for, by its object; None: for nothing any more. Harmless when told again."""
        before, shape = self._unplaced.version, _known(pending.member) if pending is not None else None
        if pending is None or shape is None:
            self._unplaced.leaves(uid)
        else:
            self._unplaced.asks(uid, tenant=pending.tenant, shape=shape, count=pending.count)
        if self._unplaced.version != before:
            self._stirred.set()

    def offers(self, name: str, request: Request | None) -> None:
        """What a flavor asks for; None: it is offered no more."""
        before = self._unplaced.version
        self._unplaced.offers(name, _known(request) if request is not None else None)
        if self._unplaced.version != before:
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
        placed, hosts = self._arrivals.mix(), classes(self._arrays)
        mix = self._unplaced.mix(placed, hosts=hosts)
        last, outlook = self.own.outlook, None
        if self._due(placed, mix, hosts=hosts):
            self._others_from = self._clock.monotonic() + OTHERS_SECONDS
            outlook = await self._outlook(mix, hosts)
            if outlook is not None:
                self._seen, self._hosts = placed, hosts
                log.info(
                    "outlook derived", shapes=len(mix.shapes), classes=len(hosts), turnover=self.own.turnover.ratio
                )
        if self.own.behind or outlook is not None:
            for _ in self.own.turn_to(outlook or last):
                await asyncio.sleep(0)

    def _due(self, placed: Mix, mix: Mix, *, hosts: Mapping[HostClass, int]) -> bool:
        """Whether what was placed, or the fleet, is something else than at the last time; else all that is asked for,
        once it is time to look at that."""
        moved = _moved(self._hosts, hosts) >= GROWN
        if placed.shapes and (moved or placed.distance(self._seen) >= ANOTHER):
            return True
        if not mix.shapes or not (moved or mix.distance(self.own.outlook.mix) >= ANOTHER):
            return False
        due = self._clock.monotonic() >= self._others_from
        if not due:
            # It is looked at again, though nobody stirs.
            self._stirred.set()
        return due

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


def _known(request: Request) -> Shape | None:
    """What is counted of who has no place. Of an instance nothing, as of claims; nor of a share in bytes, for nobody
    knows yet of which device it is how much."""
    return None if request.device_profile or request.device_bytes else Shape.of(request)


def _milli(hold: Hold) -> int:
    """Thousandths of devices, all together."""
    if hold.device_profile:
        return hold.device_milli
    return hold.shape.milli if hold.shape is not None else WHOLE * len(hold.devices)
