"""Which kinds this loop may work on now: one lease per kind, so that several controllers share the work.

Invariant: `fence` answers None from the moment on which the lease may have run out, measured on this process's own
monotonic clock from before it asked. Work that began under one fence and ends under another is dropped by its worker.
What it had sent before is under that fence, too: the store refuses it once another has had the lease (`ports.UNDER`).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence

import structlog

from bessemer.core.clock import Clock
from bessemer.core.errors import BessemerError
from bessemer.core.ports import Lease, Leases
from bessemer.loop.metrics import KindMetrics

LEASE_SECONDS = 15.0

log = structlog.get_logger(__name__)


def lease_of(kind: str) -> str:
    """The name of a kind's lease."""
    return f"loop/{kind}"


class Leadership:
    """Acquires and renews ``loop/KIND`` for each kind; ``gained`` is called when one becomes this loop's."""

    def __init__(
        self,
        leases: Leases,
        *,
        holder: str,
        clock: Clock,
        metrics: Mapping[str, KindMetrics],
        gained: Callable[[str], None],
        seconds: float = LEASE_SECONDS,
    ) -> None:
        self._leases = leases
        self._holder = holder
        self._clock = clock
        self._metrics = metrics
        self._gained = gained
        self._seconds = seconds
        self._held: dict[str, tuple[int, float]] = {}
        self._asked = asyncio.Event()

    def fence(self, kind: str) -> int | None:
        """The fencing number under which this loop may work on the kind, or None."""
        held = self._held.get(kind)
        return held[0] if held is not None and self._clock.monotonic() < held[1] else None

    async def asked(self) -> None:
        """Return when every lease has been asked for once."""
        await self._asked.wait()

    async def run(self) -> None:
        """Acquire and renew, for ever; a third of a lease's time between two attempts."""
        while await self._round():
            await self._clock.sleep(self._seconds / 3)

    async def release(self) -> None:
        """Let go of what is held, so that another loop need not wait for it to run out."""
        held, self._held = list(self._held), {}
        for kind in held:
            self._metrics[kind].lease.set(0)
            try:
                await self._leases.release(lease_of(kind), self._holder)
            except BessemerError as error:
                log.warning("lease not released", kind=kind, error=str(error))

    async def _round(self) -> bool:
        """Ask for every lease. False where all are held for good and nobody need ask again."""
        await asyncio.gather(*(self._ask(kind) for kind in self._metrics))
        self._asked.set()
        return any(math.isfinite(self._held.get(kind, (0, 0.0))[1]) for kind in self._metrics)

    async def _ask(self, kind: str) -> None:
        asked = self._clock.monotonic()
        try:
            lease = await self._leases.acquire(lease_of(kind), self._holder, self._seconds)
        except BessemerError as error:
            # What is held stays held until its time is over: the store may be back before that.
            log.warning("lease not renewed", kind=kind, error=str(error))
            self._metrics[kind].lease.set(0 if self.fence(kind) is None else 1)
            return
        # As it is now: what ran out while the answer was on its way has lost turns and timers to that.
        before = self.fence(kind)
        if lease is None:
            self._held.pop(kind, None)
        else:
            until = math.inf if math.isinf(lease.expires_at) else asked + self._seconds
            self._held[kind] = (lease.fence, until)
        self._metrics[kind].lease.set(0 if self.fence(kind) is None else 1)
        if lease is not None and lease.fence != before:
            self._gained(kind)


class Granted:
    """Leases for a loop that has no rival: an agent's. Each is granted at once and never runs out."""

    async def acquire(
        self, name: str, holder: str, ttl_seconds: float, *, note: str = "", patience: float = 0.0
    ) -> Lease | None:
        return Lease(name, holder, 1, math.inf, note)

    async def release(self, name: str, holder: str) -> None:
        return None

    async def held(self, prefix: str) -> Sequence[Lease]:
        return ()

    async def ending(self, prefix: str, within: float) -> Sequence[Lease]:
        return ()
