"""An agent's content: images and models by digest, from the api, checked each time they are asked for.

What a Claim of this host names, or a host side has pinned, is never evicted. A file that turns out to hold something
else is removed and refused with ``DigestMismatch``; the next time it is fetched anew.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson
import structlog

from bessemer.agent.link import TROUBLE, Link
from bessemer.agent.metrics import AgentMetrics
from bessemer.core.errors import DriverError
from bessemer.drivers.fetch.protocol import Content, Source

_DIGEST = re.compile(rb"sha256:[0-9a-f]{64}")

log = structlog.get_logger(__name__)

Wanted = Callable[[], Iterable[Mapping[str, Any]]]
"""The intents of the Claims that are on this host."""


class AgentContent:
    """Implements `kinds.context.Content` over a cache that holds at most ``budget_bytes``, and more only of what is
    named."""

    def __init__(self, cache: Content, link: Link, *, wanted: Wanted, budget_bytes: int, metrics: AgentMetrics) -> None:
        self._cache = cache
        self._link = link
        self._wanted = wanted
        self._budget_bytes = budget_bytes
        self._metrics = metrics
        self._told_bytes = -1
        self._pins: dict[str, tuple[str, ...]] = {}

    async def ensure(self, digest: str) -> Path:
        """Raises DriverError ``DigestMismatch``, ``DiskFull``, ``FetchFailed``."""
        try:
            path = await self._cache.verify(digest)
            if self._told_bytes < 0:  # what an agent before this one left may be more than is kept now
                await self._evict(self._budget_bytes)
            return path
        except DriverError as error:
            if error.reason != "ContentMissing":
                raise
        try:
            await self._cache.ensure(digest, [self._source(digest)])
        except DriverError as error:
            if error.reason != "DiskFull" or not await self._evict(0):
                raise
            await self._cache.ensure(digest, [self._source(digest)])
        await self._evict(self._budget_bytes)
        return await self._cache.verify(digest)

    def pin(self, claim_uid: str, digests: tuple[str, ...]) -> None:
        """Keep these while the claim stands; an empty tuple lets go."""
        if digests:
            self._pins[claim_uid] = digests
        else:
            self._pins.pop(claim_uid, None)

    async def _evict(self, budget_bytes: int) -> tuple[str, ...]:
        named = _DIGEST.findall(orjson.dumps([dict(intent) for intent in self._wanted()]))
        pinned = {found.decode() for found in named}.union(*self._pins.values())
        gone = await self._cache.evict(budget_bytes, pinned=pinned)
        if gone:
            log.info("content evicted", digests=list(gone))
            self._metrics.evictions.inc(len(gone))
        held = sum(item.size_bytes for item in await self._cache.stored())
        self._metrics.content.inc(held - max(0, self._told_bytes))
        self._told_bytes = held
        return gone

    def _source(self, digest: str) -> Source:
        async def read(offset: int) -> AsyncGenerator[bytes, None]:
            try:
                async with self._link.client.agents.content(digest, offset=offset) as parts:
                    async for part in parts:
                        yield part
            except DriverError:
                raise
            except TROUBLE as error:
                self._link.failed(error)
                raise DriverError("FetchFailed", f"the api gave no content: {error}") from error

        return read
