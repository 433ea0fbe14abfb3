"""Gives turns to requests that wait for a replica: when one is free, and at each tick for whatever else changed."""

from __future__ import annotations

import asyncio

from bessemer.core.clock import Clock
from bessemer.gateway.route import Pool


class Turns:
    """Of one gateway: the pools for which somebody waits."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._pools: dict[Pool, None] = {}
        self._soon: set[Pool] = set()

    def add(self, pool: Pool) -> None:
        """Somebody waits there."""
        self._pools[pool] = None

    def freed(self, pool: Pool) -> None:
        """There may be room: whoever is next has it, once what is being done is done."""
        if pool not in self._soon:
            self._soon.add(pool)
            asyncio.get_running_loop().call_soon(self._serve, pool)

    def sweep(self) -> None:
        """Look at all of them: replicas come, rest no more, and are all gone."""
        for pool in list(self._pools):
            self._serve(pool)

    def _serve(self, pool: Pool) -> None:
        self._soon.discard(pool)
        while pool.room(self._clock.monotonic()) and (waiter := pool.waiting.next()) is not None:
            waiter.turn()
        if not pool.waiting.count:
            self._pools.pop(pool, None)
