"""Heartbeats: a host that falls silent is woken when its lease runs out, one that is heard again soon after."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from bessemer.core.clock import FakeClock
from bessemer.core.errors import Unavailable
from bessemer.core.ports import Lease
from bessemer.core.resource import Key
from bessemer.kinds.fleet.heartbeats import LOOK_SECONDS, PAST_LEASE_SECONDS, Heartbeats


class Leases:
    """Leases by host, in seconds from the clock's start."""

    def __init__(self, clock: FakeClock, **ends: float) -> None:
        self.clock = clock
        self.ends = ends
        self.looks = 0
        self.away = False

    async def ending(self, prefix: str, within: float) -> Sequence[Lease]:
        self.looks += 1
        if self.away:
            raise Unavailable("the store cannot read now")
        last = self.clock.now() + within
        return [Lease(f"{prefix}{name}", "agent", 1, end, "") for name, end in self.ends.items() if end <= last]


async def test_who_falls_silent_is_woken_once_and_again_when_heard() -> None:
    clock, woken = FakeClock(), list[Key]()
    start = clock.now()
    leases = Leases(clock, a=start + 12.0, b=start + 600.0)
    running = asyncio.create_task(Heartbeats(leases, clock, wake=woken.append).run())  # type: ignore[arg-type]
    await clock.advance(12.0)
    assert woken == []
    await clock.advance(PAST_LEASE_SECONDS + 0.2)
    assert woken == [Key("Host", "", "a")], "at once, not at the next regular look"
    await clock.advance(60.0)
    assert len(woken) == 1
    leases.ends["a"] = start + 600.0
    await clock.advance(LOOK_SECONDS + 0.2)
    assert woken == [Key("Host", "", "a")] * 2
    running.cancel()


async def test_a_store_that_is_away_ends_nothing() -> None:
    clock, woken = FakeClock(), list[Key]()
    leases = Leases(clock, a=clock.now() - 1.0)
    leases.away = True
    running = asyncio.create_task(Heartbeats(leases, clock, wake=woken.append).run())  # type: ignore[arg-type]
    await clock.advance(2 * LOOK_SECONDS)
    assert leases.looks > 1
    leases.away = False
    await clock.advance(LOOK_SECONDS + 0.2)
    assert woken == [Key("Host", "", "a")]
    running.cancel()
