"""Following what the api says: list, watch from there, list again where history has run out.

It brings whole lists and single changes to two callables and knows nothing of their meaning. It never ends by itself.
The client resumes a watch by revision after a lost connection; a follower that starts again resumes by its own.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing

import structlog

from bessemer.agent.link import TROUBLE, Link
from bessemer.agent.metrics import AgentMetrics
from bessemer.client import Client
from bessemer.core.clock import Clock
from bessemer.core.errors import Expired
from bessemer.core.ports import Scope, Stored
from bessemer.core.resource import Change, Key
from bessemer.loop.queue import Backoff

PAGE = 500

Listed = Callable[[Sequence[Stored]], Awaitable[None]]
Changed = Callable[[Change], Awaitable[None]]

log = structlog.get_logger(__name__)


class Follower:
    """Follows one scope: ``listed`` gets each complete list, ``changed`` each change after it, one at a time."""

    def __init__(self, link: Link, scope: Scope, *, listed: Listed, changed: Changed, metrics: AgentMetrics) -> None:
        self._link = link
        self._scope = scope
        self._listed = listed
        self._changed = changed
        self._metrics = metrics
        self._revision: int | None = None

    async def run(self, clock: Clock) -> None:
        """For ever: what the api answers decides only how long to wait. The waits are spread, so that an api that comes
        back is not met by every host at once."""
        key, backoff = Key(self._scope.kind, "", ""), Backoff(0.5, 15.0, random.random)
        while True:
            before = self._revision
            try:
                await self._once(self._link.client)
            except Expired:
                self._revision = None
            except TROUBLE as error:
                self._link.failed(error)
                log.info("watch ended", kind=self._scope.kind, host=self._link.identity.host, error=str(error))
            self._metrics.disconnects.labels(self._scope.kind).inc()
            if self._revision != before:
                backoff.reset(key)
            await clock.sleep(backoff.next(key))

    async def _once(self, client: Client) -> None:
        if self._revision is None:
            self._revision = await self._list(client)
        async with aclosing(client.watch(self._scope, since=self._revision)) as events:
            async for event in events:
                if isinstance(event, Change):
                    await self._changed(event)
                self._revision = event.revision

    async def _list(self, client: Client) -> int:
        page = await client.list(self._scope, limit=PAGE)
        items = list(page.items)
        while page.next:
            page = await client.list(self._scope, limit=PAGE, after=page.next)
            items += page.items
        await self._listed(items)
        self._metrics.relists.labels(self._scope.kind).inc()
        return page.revision
