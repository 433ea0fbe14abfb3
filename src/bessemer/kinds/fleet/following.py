"""`Following`: kinds that are read whole once, and then by their changes alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from bessemer.core.clock import Clock
from bessemer.core.errors import BessemerError, Expired
from bessemer.core.ports import Objects, Scope
from bessemer.core.resource import Change

_RETRY_SECONDS = 1.0
STEP = 16
"""So many are heard before others have a turn: a host takes up to half a millisecond, and a fleet has ten thousand."""

log = structlog.get_logger(__name__)

Take = Callable[[Change], Awaitable[str]]
"""What to do with a change. Answers by what its object is known."""

Listed = Callable[[set[str]], None]
"""What to do once all of a kind was read: these are known, and no others."""


class Following:
    """Where each kind has been read up to. Whatever ends a watch, the next goes on from there; it reads all anew only
    where history ran out."""

    def __init__(self, objects: Objects, clock: Clock) -> None:
        self._objects = objects
        self._clock = clock
        self._since: dict[str, int] = {}

    async def run(self, kind: str, *, take: Take, listed: Listed) -> None:
        """Follow a kind, for ever."""
        while True:
            try:
                await self._watch(kind, take=take, listed=listed)
            except Expired:
                log.info("history ran out, reading anew", kind=kind)
                self._since.pop(kind, None)
            except BessemerError as error:
                log.warning("watch interrupted", kind=kind, error=str(error), internal=error.internal)
            await self._clock.sleep(_RETRY_SECONDS)

    async def _watch(self, kind: str, *, take: Take, listed: Listed) -> None:
        """One watch until it ends."""
        since = self._since.get(kind)
        names: set[str] | None = set() if since is None else None
        heard = 0
        async for item in self._objects.watch(Scope(kind=kind), since=since):
            heard += 1
            if heard % STEP == 0:
                await asyncio.sleep(0)
            if isinstance(item, Change):
                name = await take(item)
                if names is not None:
                    names.add(name)
                    continue
            elif names is not None:
                listed(names)
                names = None
            self._since[kind] = item.revision
