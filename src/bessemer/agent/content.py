"""An agent's content: images and models by digest, from the api, checked each time they are asked for.

What a Claim of this host names, or a host side has pinned, is never evicted. Room is made before content comes: the
least recently used goes first, so that the cache stays within its budget, and past that only as far as the disk keeps
its reserve, which is for guests. What does not fit all the same is refused in words, before a byte of it came. A file
that turns out to hold something else is removed and refused with ``DigestMismatch``; the next time it is fetched anew.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import structlog

from bessemer.agent.link import TROUBLE, Link
from bessemer.agent.metrics import AgentMetrics
from bessemer.core.errors import DriverError, NotFound
from bessemer.core.units import show_bytes
from bessemer.drivers.fetch.protocol import Content, Source

LOOK_BYTES = 64 << 20
"""After so many it is seen again whether the reserve is still free: guests write, too."""

_DIGEST = re.compile(rb"sha256:[0-9a-f]{64}")

log = structlog.get_logger(__name__)

Wanted = Callable[[], Iterable[Mapping[str, Any]]]
"""The intents of the Claims that are on this host."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of a cache: it holds at most ``budget_bytes``, and more only of what is named; ``reserve_bytes`` of its disk
    stay free."""

    budget_bytes: int
    reserve_bytes: int


class AgentContent:
    """Implements `kinds.context.Content` over a cache."""

    def __init__(self, cache: Content, link: Link, *, wanted: Wanted, bounds: Bounds, metrics: AgentMetrics) -> None:
        self._cache = cache
        self._link = link
        self._wanted = wanted
        self._bounds = bounds
        self._metrics = metrics
        self._told_bytes = -1
        self._pins: dict[str, tuple[str, ...]] = {}
        self._coming: dict[str, int] = {}
        """Bytes that are still to come, by digest."""

    async def ensure(self, digest: str) -> Path:
        """Raises DriverError ``DigestMismatch``, ``DiskFull``, ``FetchFailed``."""
        try:
            path = await self._cache.verify(digest)
            if self._told_bytes < 0:  # what an agent before this one left may be more than is kept now
                await self._evict(self._bounds.budget_bytes)
            return path
        except DriverError as error:
            if error.reason != "ContentMissing":
                raise
        size = await self._make_room(digest)

        def tell(had: int) -> None:
            self._coming[digest] = max(0, size - had)

        tell(0)
        try:
            await self._fetch(digest, tell)
        finally:
            self._coming.pop(digest, None)
        await self._evict(self._bounds.budget_bytes)
        return await self._cache.verify(digest)

    def pin(self, claim_uid: str, digests: tuple[str, ...]) -> None:
        """Keep these while the claim stands; an empty tuple lets go."""
        if digests:
            self._pins[claim_uid] = digests
        else:
            self._pins.pop(claim_uid, None)

    async def _fetch(self, digest: str, tell: Callable[[int], None]) -> None:
        """Once more where the disk got full and something could go."""
        try:
            await self._cache.ensure(digest, [self._source(digest)], progress=tell)
        except DriverError as error:
            if error.reason != "DiskFull" or not await self._evict(0):
                raise
            await self._cache.ensure(digest, [self._source(digest)], progress=tell)

    async def _make_room(self, digest: str) -> int:
        """Let what is used least go, as far as the content needs it; answers its size, 0 where nobody says. Raises
        DriverError ``DiskFull`` where it does not fit beside what is named."""
        if await self._cache.room() is None:
            return 0
        size = await self._size(digest)
        await self._evict(max(0, self._bounds.budget_bytes - size))
        if await self._lacks(size, but=digest):
            await self._evict(0)
            if await self._lacks(size, but=digest):
                raise self._full(f"{show_bytes(size)} of content would have to come", await self._cache.room() or 0)
        return size

    async def _lacks(self, size: int, *, but: str) -> bool:
        """Whether the disk's reserve would be touched by so many bytes more, and by what else is on its way."""
        free = await self._cache.room(but)
        others = sum(left for digest, left in self._coming.items() if digest != but)
        return free is not None and size + others + self._bounds.reserve_bytes > free

    def _full(self, what: str, free: int) -> DriverError:
        named = "nothing more of its cache can go, for claims on this host name the rest"
        reserve = show_bytes(self._bounds.reserve_bytes)
        words = f"{what}, and {show_bytes(free)} are free on the host's disk, of which {reserve} stay free for guests"
        return DriverError("DiskFull", f"{words}; {named}: free space there, or place it on a host with a larger disk")

    async def _size(self, digest: str) -> int:
        try:
            return await self._link.client.agents.content_size(digest)
        except NotFound:  # an api that does not say: it is watched while it comes
            return 0
        except TROUBLE as error:
            self._link.failed(error)
            raise DriverError("FetchFailed", f"the api gave no content: {error}") from error

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
                    async for part in self._watched(parts):
                        yield part
            except DriverError:
                raise
            except TROUBLE as error:
                self._link.failed(error)
                raise DriverError("FetchFailed", f"the api gave no content: {error}") from error

        return read

    async def _watched(self, parts: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        """The same. Raises DriverError ``DiskFull`` where the disk's reserve is touched while they come."""
        unseen = 0
        async for part in parts:
            unseen += len(part)
            if unseen >= LOOK_BYTES:
                unseen, free = 0, await self._cache.room()
                if free is not None and free < self._bounds.reserve_bytes:
                    raise self._full("its content cannot come to its end", free)
            yield part
