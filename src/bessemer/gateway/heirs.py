"""What a gateway says of what it holds, while it lives; and what a predecessor of its name left: it is given back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import structlog

from bessemer.core.clock import Clock
from bessemer.core.errors import BessemerError, Forbidden, Malformed, NotFound

ROUND_SECONDS = 30.0
"""How often what is held is said again, and what nobody needs is given back."""

INHERIT_SECONDS = 1.0
INHERIT_TRIES = 60
"""How often, and of each project how many times, it is tried to give back what a predecessor held."""

Left = Callable[[], Awaitable[Sequence[str]]]
"""The projects of which the gateway of this name holds something, by what the api was told."""

_log = structlog.get_logger("gateway.heirs")


class Holding(Protocol):
    """What holds something of others': `lending`."""

    @property
    def ready(self) -> bool:
        """Whether nothing is in the spool any more that a predecessor held something for."""
        ...

    async def say(self, *, last: bool = False) -> None:
        """Say what is held."""
        ...

    async def replaced(self, project: str) -> bool:
        """Let this gateway's word take the place of its predecessor's; whether it did."""
        ...


async def keep_saying(holding: Holding, left: Left | None = None, *, clock: Clock) -> None:
    """Say what is held, again and again, until cancelled; beside that, see to what a predecessor ``left``."""
    async with asyncio.TaskGroup() as beside:
        if left is not None:
            beside.create_task(inherit(holding, left, clock=clock))
        while True:
            await clock.sleep(ROUND_SECONDS)
            await holding.say()


async def inherit(holding: Holding, left: Left, *, clock: Clock) -> None:
    """Once the spool of before is settled, give back what a predecessor of this name held, in every project."""
    projects: Sequence[str] | None = None
    while projects is None:
        projects = await _known(left) if holding.ready else None
        if projects is None:
            await clock.sleep(INHERIT_SECONDS)
    for _ in range(INHERIT_TRIES):
        projects = [project for project in projects if not await holding.replaced(project)]
        if not projects:
            return
        await clock.sleep(INHERIT_SECONDS)
    _log.warning("what is held from before stays held", projects=len(projects))


async def _known(left: Left) -> Sequence[str] | None:
    """None where nobody says."""
    try:
        return await left()
    except (NotFound, Forbidden, Malformed):
        return ()  # a replica of an older release knows no such path or method: what it keeps ends by itself
    except (BessemerError, OSError) as error:
        _log.warning("what is held from before is not known", error=str(error))
        return None
