"""A controller of the simulated cloud: what one process with the part `controller` holds, and a gate that holds it up.

Held up it does nothing, as a process that was stopped: no timer of it rings, no answer reaches it, and no call that it
was about to make leaves it. The world goes on. When it is let go, it goes on where it stood.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from inspect import isasyncgenfunction, iscoroutinefunction
from typing import Any

from bessemer.core.clock import Clock
from bessemer.core.errors import Unavailable
from bessemer.core.ports import CONTROLLER, Lease
from bessemer.drivers.oidc.fake import FakeIssuers
from bessemer.kinds import KINDS
from bessemer.kinds.context import Context
from bessemer.kinds.fleet.heartbeats import Heartbeats
from bessemer.kinds.fleet.inventory import FleetFeed
from bessemer.kinds.fleet.queueing import Queueing
from bessemer.loop import Granted, Loop
from bessemer.store import Store
from tests.kinds.fleet.outlooks import at_once
from tests.kinds.world import WorldImporter
from tests.sim.clock import Traffic

LEASE_SECONDS = 600.0
"""Forty times the product's, so that a day of renewals fits into its minute."""


class Gate:
    """What everything that enters or leaves one process passes."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._open.set()
        self._left = 0

    @property
    def shut(self) -> bool:
        return bool(self._left) or not self._open.is_set()

    def close(self, after: int) -> None:
        """Shut when so many more have passed: amid some work, at whatever it was about to do."""
        self._left = after

    def open(self) -> None:
        self._left = 0
        self._open.set()

    async def passed(self) -> None:
        """Return once it stands open."""
        if self._left:
            self._left -= 1
            if not self._left:
                self._open.clear()
        await self._open.wait()

    def before(self, port: Any) -> Any:
        """The port as the process behind the gate reaches it."""
        return _Gated(port, self)


class _Gated:
    def __init__(self, port: Any, gate: Gate) -> None:
        self._port = port
        self._gate = gate

    def __getattr__(self, name: str) -> Any:
        value, gate = getattr(self._port, name), self._gate
        if isasyncgenfunction(value):

            async def items(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
                async for item in value(*args, **kwargs):
                    await gate.passed()
                    yield item

            return items
        if not iscoroutinefunction(value):
            return value

        async def call(*args: Any, **kwargs: Any) -> Any:
            await gate.passed()
            try:
                return await value(*args, **kwargs)
            finally:
                await gate.passed()

        return call


class _GatedClock:
    """Goes on while the process is held up; who slept wakes late."""

    def __init__(self, clock: Clock, gate: Gate) -> None:
        self._clock = clock
        self._gate = gate
        self.now = clock.now
        self.monotonic = clock.monotonic

    async def sleep(self, seconds: float) -> None:
        await self._clock.sleep(seconds)
        await self._gate.passed()


class _Unsure:
    """Real leases, of which some cannot be asked for."""

    def __init__(self, leases: Any) -> None:
        self._leases = leases
        self.away: frozenset[str] = frozenset()
        self.release = leases.release
        self.held = leases.held

    async def acquire(
        self, name: str, holder: str, ttl_seconds: float, *, note: str = "", patience: float = 0.0
    ) -> Lease | None:
        if name in self.away:
            raise Unavailable("the answer was lost")
        lease: Lease | None = await self._leases.acquire(name, holder, ttl_seconds, note=note, patience=patience)
        return lease


class Controller:
    """A loop over the control side of every kind, a fleet of its own, and nothing shared with another but the store.

    With ``rivals`` it competes for its leases, behind a gate; alone it has them for good.
    """

    def __init__(self, name: str, store: Store, *, clock: Clock, traffic: Traffic, rivals: bool) -> None:
        self.gate = Gate()
        self.leases = _Unsure(traffic.counted(store.leases))

        def reached(port: Any) -> Any:
            return self.gate.before(traffic.counted(port)) if rivals else traffic.counted(port)

        own: Clock = _GatedClock(clock, self.gate) if rivals else clock
        objects = reached(store.objects)
        self._fleet = Queueing(FleetFeed(objects, own, derive=at_once), objects, clock=own)
        ctx = Context(
            objects=objects,
            capacity=reached(store.capacity),
            ledger=reached(store.ledger),
            leases=reached(store.leases),
            fleet=self._fleet,
            importer=WorldImporter(),
            issuers=FakeIssuers(),
            clock=own,
        )
        self._loop: Loop[Any] = Loop(
            KINDS,
            ctx,
            objects=objects,
            leases=self.gate.before(self.leases) if rivals else Granted(),
            events=reached(store.events),
            clock=own,
            writer=CONTROLLER,
            holder=name,
            lease_seconds=LEASE_SECONDS,
        )
        self._heartbeats = Heartbeats(ctx.leases, own, wake=self._loop.wake)

    def relieve(self) -> None:
        """Whatever held it up is over."""
        self.gate.open()
        self.leases.away = frozenset()

    def start(self) -> Sequence[asyncio.Task[None]]:
        """Its tasks. To cancel them is its end."""
        return [asyncio.create_task(part.run()) for part in (self._fleet, self._loop, self._heartbeats)]
