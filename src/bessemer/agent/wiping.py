"""Wipes the disks that Claims have left, a step after the other, and lets the api know which are not to be had.

What is owed, and how far it is, stands on the disk (`drivers.wipe`): this only goes on with it, also with what an agent
before began. Where nothing is owed it sleeps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import structlog

from bessemer.core.clock import Clock
from bessemer.core.errors import DriverError
from bessemer.core.tasks import first_of
from bessemer.drivers.wipe.wipes import Wipes

LOOK_SECONDS = 10.0
"""Between two steps where a disk has to be waited for."""

HEARD_SECONDS = 10.0
"""How long the word that a Claim is gone waits for the api to have heard which of its disks are owed. Nothing depends
on it: who is given one all the same is refused it here, and waits."""

log = structlog.get_logger(__name__)


class Machine(Protocol):
    """What is reported of this host."""

    async def look(self) -> object:
        """Raises DriverError."""
        ...

    async def heard(self, *, seconds: float) -> None: ...


class Cleaner:
    """Of one host. Without ``wipes`` it does nothing."""

    def __init__(self, wipes: Wipes | None, machine: Machine, *, clock: Clock) -> None:
        self._wipes = wipes
        self._machine = machine
        self._clock = clock
        self._told: Mapping[str, str] | None = None

    async def run(self) -> None:
        """For ever."""
        if (wipes := self._wipes) is None:
            return
        while True:
            await wipes.news.wait()
            wipes.news.clear()
            busy = await wipes.step()
            unfit = await self._tell(wipes)
            if busy:
                wipes.news.set()
            elif unfit:
                await first_of(wipes.news.wait(), self._clock.sleep(LOOK_SECONDS))
                wipes.news.set()

    async def tell(self) -> None:
        """Return once the api has heard what is owed, or cannot be waited for."""
        if self._wipes is None:
            return
        before = self._told or {}
        if await self._tell(self._wipes) != before:
            await self._machine.heard(seconds=HEARD_SECONDS)

    async def _tell(self, wipes: Wipes) -> Mapping[str, str]:
        """Let the machine be looked at anew where something else is unfit, or for another reason."""
        unfit = await wipes.unfit()
        if unfit != (self._told or {}):
            try:
                await self._machine.look()
            except DriverError as error:
                log.warning("inspection failed", reason=error.reason, error=str(error))
                return unfit
        self._told = unfit
        return unfit
