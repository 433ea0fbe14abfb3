"""Keeps the tables current: one watch per kind, resumed, listed anew where history does not reach back."""

from __future__ import annotations

import asyncio

import structlog

from bessemer.core.clock import Clock
from bessemer.core.errors import BessemerError, Expired
from bessemer.core.ports import Bookmark, Scope, Watchable
from bessemer.gateway.tables import Tables

KINDS = ("ApiKey", "Endpoint", "Claim")
_RETRY_SECONDS = 1.0

_log = structlog.get_logger("gateway.follow")


class Follower:
    """Follows the kinds that the gateway may read. ``ready`` is set once each was listed."""

    def __init__(self, objects: Watchable, tables: Tables, *, clock: Clock) -> None:
        self._objects = objects
        self._tables = tables
        self._clock = clock
        self._listed: set[str] = set()
        self._heard = clock.monotonic()
        self.ready = asyncio.Event()

    def silent(self) -> float:
        """For how many seconds nothing was heard of keys: more than a minute or two on a wire that is cut."""
        return self._clock.monotonic() - self._heard

    async def run(self) -> None:
        """Follow until cancelled."""
        async with asyncio.TaskGroup() as group:
            for kind in KINDS:
                group.create_task(self._follow(kind))

    async def _follow(self, kind: str) -> None:
        while True:
            try:
                await self._once(kind)
            except Expired:
                continue
            except BessemerError as error:
                _log.warning("cannot follow", kind=kind, error=error.message)
            await self._clock.sleep(_RETRY_SECONDS)

    async def _once(self, kind: str) -> None:
        listing: set[str] | None = set()
        async for change in self._objects.watch(Scope(kind=kind)):
            if kind == "ApiKey":
                self._heard = self._clock.monotonic()
            if isinstance(change, Bookmark):
                if listing is not None:
                    self._tables.forget(kind, frozenset(listing))
                    self._note_listed(kind)
                    listing = None
                continue
            if listing is not None:
                listing.add(change.uid)
            self._tables.apply(change)

    def _note_listed(self, kind: str) -> None:
        self._listed.add(kind)
        if self._listed.issuperset(KINDS):
            self.ready.set()
