"""Follows one kind's changes and turns them into names.

Invariants: no change is lost, because a feed goes on from the last revision it delivered and lists anew where history
no longer reaches back; whoever depends on the kind is signalled for each change, and all of them after a new list.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import structlog

from bessemer.core.clock import Clock
from bessemer.core.errors import BessemerError, Expired
from bessemer.core.ports import Bookmark, Scope, Watchable
from bessemer.core.resource import Change

STEP = 8
"""Changes between two chances for others to run."""

log = structlog.get_logger(__name__)


class Feed:
    """One kind's changes. ``changed(change, live)`` is called for each, ``live`` False while the first list arrives."""

    def __init__(
        self,
        kind: str,
        objects: Watchable,
        *,
        clock: Clock,
        changed: Callable[[Change, bool], Awaitable[None]],
        synced: Callable[[bool], Awaitable[None]],
    ) -> None:
        self.kind = kind
        self._objects = objects
        self._clock = clock
        self._changed = changed
        self._synced = synced
        self._revision: int | None = None
        self._listed_before = False
        self._failures = 0

    async def run(self) -> None:
        """Follow, for ever. What ends a watch is waited out, and the watch resumed where it ended."""
        while True:
            try:
                await self._follow()
            except Expired:
                log.info("history ran out, listing anew", kind=self.kind)
                self._revision = None
            except BessemerError as error:
                self._failures += 1
                log.warning("watch interrupted", kind=self.kind, error=str(error), internal=error.internal)
            await self._clock.sleep(min(30.0, 0.1 * 2.0 ** min(self._failures, 10)) * (0.5 + 0.5 * random.random()))

    async def _follow(self) -> None:
        listing = self._revision is None
        heard = 0
        async for item in self._objects.watch(Scope(kind=self.kind), since=self._revision):
            self._failures = 0
            heard += 1
            if heard % STEP == 0:
                await asyncio.sleep(0)
            if isinstance(item, Bookmark):
                self._revision = item.revision
                if listing:
                    listing = False
                    await self._synced(self._listed_before)
                    self._listed_before = True
                continue
            await self._changed(item, not listing)
            if not listing:
                self._revision = item.revision
