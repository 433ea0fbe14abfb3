"""A mirror: the objects of one kind that one session may see, kept current by one watch.

All tabs of the session read it, so a page costs no request to the api and an update reaches every tab at once. It
holds what the api shows to the session's bearer and nothing else; it is dropped with the session.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import orjson
import structlog

from bessemer.client import Client
from bessemer.core.clock import Clock
from bessemer.core.errors import BessemerError, Expired, Forbidden, NotFound, TooMany, Unauthenticated, Unavailable
from bessemer.core.ports import Bookmark, Scope
from bessemer.core.resource import Change, Key
from bessemer.portal.facts import EventFact, Fact
from bessemer.portal.reading import READERS

EVENTS_KEPT = 400
_RETRY_SECONDS = 1.0
_ANEW_SECONDS = 5.0

_log = structlog.get_logger("portal")


class Mirror:
    """One kind. ``facts`` is complete once ``ready`` is set; a kind that may not be seen is ready and empty."""

    def __init__(self, client: Client, kind: str, *, clock: Clock, changed: Callable[[], None]) -> None:
        self.kind = kind
        self.facts: dict[Key, Fact] = {}
        self.ready = asyncio.Event()
        self.error: BessemerError | None = None
        self._client = client
        self._clock = clock
        self._changed = changed
        self._read = READERS[kind]
        self._fresh: set[Key] | None = set()
        self._task: asyncio.Task[None] | None = None

    def start(self, *, after: float = 0.0) -> None:
        """Follow the kind from now on, or ``after`` seconds. What ends it unforeseen is logged, and it begins anew."""
        self._task = asyncio.create_task(self._run_after(after))
        self._task.add_done_callback(self._over)

    async def stop(self) -> None:
        """Follow it no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def run(self) -> None:
        """Follow the kind until cancelled, or until the session may not."""
        while True:
            try:
                self._fresh = set()
                async for event in self._client.watch(Scope(kind=self.kind)):
                    self._apply(event)
            except Expired:
                continue
            except (Unavailable, TooMany):
                await self._clock.sleep(_RETRY_SECONDS)
            except (Forbidden, NotFound, Unauthenticated) as error:
                self.error = error
                self.facts.clear()
                self.ready.set()
                self._changed()
                return

    async def _run_after(self, seconds: float) -> None:
        if seconds:
            await self._clock.sleep(seconds)
        await self.run()

    def _over(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or (error := task.exception()) is None:
            return
        _log.error("a mirror ended; it begins anew", kind=self.kind, exc_info=error)
        self.start(after=_ANEW_SECONDS)

    def _apply(self, event: Change | Bookmark) -> None:
        if isinstance(event, Bookmark):
            self._settle()
            return
        if event.type == "DELETED":
            self.facts.pop(event.key, None)
        else:
            fact = self._read(orjson.loads(event.body))
            if self._fresh is not None:
                self._fresh.add(event.key)
            if self.facts.get(event.key) == fact:
                return
            self.facts[event.key] = fact
        if self.ready.is_set():
            self._bound()
            self._changed()

    def _settle(self) -> None:
        """The list is complete: what it did not hold is gone."""
        if self._fresh is not None:
            for key in self.facts.keys() - self._fresh:
                del self.facts[key]
            self._fresh = None
        self._bound()
        if not self.ready.is_set():
            self.ready.set()
        self._changed()

    def _bound(self) -> None:
        """Events are told, not kept: the oldest go first."""
        if self.kind == EventFact.KIND and len(self.facts) > EVENTS_KEPT + 50:
            ordered = sorted(self.facts.values(), key=lambda f: f.last if isinstance(f, EventFact) else 0.0)
            for fact in ordered[: len(self.facts) - EVENTS_KEPT]:
                del self.facts[fact.key]
