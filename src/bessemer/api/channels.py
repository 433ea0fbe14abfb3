"""Channels: a change is written once for all who watch the same, and handed to their connections in a loop.

The same is what shows the same: resource, scope, selectors and shape, whoever asks. A channel follows the store for as
long as it has readers. Invariants: a reader joins only where nothing was told yet that lies behind its revision; each
takes of what is told only what lies behind it; so every reader is told every change once, in order, whenever it joined.
What becomes of one whose connection is slow, or whose rights are in doubt, is that reader's to say (`Reader.hear`).

What is put together for each asker (sealed kinds) or says a thing once (tables) goes through no channel.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from bessemer.api.flow import Flows
from bessemer.api.listener import chunk
from bessemer.core.clock import Clock
from bessemer.core.ports import Bookmark, Objects, Scope
from bessemer.core.resource import Change

FAN, STEP_BYTES = 16, 256 << 10
"""Readers that are told in one step, and what is written to them; one is told whatever it comes to."""

BATCH_MAX, BATCH_BYTES_MAX = 16, 64 << 10
"""Changes that are told at once where several wait, and what they come to; one may be larger by itself."""


@dataclass(frozen=True, slots=True)
class Show:
    """What a channel shows. ``line`` writes a change, b"" where it shows nothing, and ``bookmark`` a revision; ``same``
    is equal for those who show the same, and ``tenant`` the one whose turns its steps are."""

    scope: Scope
    line: Callable[[Change], bytes]
    bookmark: Callable[[int], bytes]
    same: Hashable
    tenant: str


@dataclass(frozen=True, slots=True)
class Batch:
    """What is told at once, at ``at``: ``lines`` by revision, and the ``whole`` of them as a part of an answer."""

    lines: Sequence[tuple[int, bytes]]
    whole: bytes
    until: int
    """Everything up to it is told with this."""
    at: float
    bookmark: bytes
    """As a part of an answer, where one is due."""

    def after(self, revision: int) -> bytes:
        """The part of an answer for who was told everything up to a revision."""
        if not self.lines or revision < self.lines[0][0]:
            return self.whole
        return chunk(b"".join(line for at, line in self.lines if at > revision))


class Reader(Protocol):
    """Who is told. Both calls are made in the event loop, for one reader after the other."""

    revision: int
    """Everything up to it was told."""

    def hear(self, batch: Batch) -> None:
        """Take what of it lies behind ``revision``, and be told up to its end then; or leave the channel."""
        ...

    def failed(self, error: BaseException) -> None:
        """The channel has ended, by what ends a watch of the same."""
        ...


def same(scope: Scope, *rest: Hashable) -> Hashable:
    """A scope as it is compared, with what else a watch shows hangs on."""
    places = None if scope.places is None else frozenset(scope.places.items())
    bounds = (scope.namespaces, scope.names, places, frozenset(scope.labels.items()))
    return (scope.kind, scope.namespace, scope.name, scope.host), bounds, rest


@asynccontextmanager
async def followed(
    objects: Objects, scope: Scope, *, since: int, level: bool
) -> AsyncIterator[AsyncIterator[Change | Bookmark]]:
    """A watch of the store, ended at the end."""
    events = objects.watch(scope, since=since, level=level)
    try:
        yield events
    finally:
        close = getattr(events, "aclose", None)
        if close is not None:
            await close()


class Channel:
    """One. It begins at the revision up to which its first reader was told."""

    def __init__(self, show: Show, since: int, *, objects: Objects, clock: Clock, ended: Callable[[], None]) -> None:
        self._show = show
        self._objects = objects
        self._clock = clock
        self._ended = ended
        self._told = since
        self._readers: dict[Reader, None] = {}
        self._task: asyncio.Future[None] | None = None

    def begin(self, flows: Flows) -> None:
        """Follow the store, until the last reader has left."""
        self._task = asyncio.ensure_future(flows.fan(self._run, tenant=self._show.tenant))
        self._task.add_done_callback(self._over)

    def join(self, reader: Reader) -> bool:
        """Tell the reader what comes; False where something was told already that lies behind its revision."""
        if self._told > reader.revision:
            return False
        self._readers[reader] = None
        return True

    def leave(self, reader: Reader) -> None:
        """Tell it no more."""
        self._readers.pop(reader, None)
        if not self._readers and self._task is not None:
            self._task.cancel()
            self._ended()

    def _over(self, task: asyncio.Future[None]) -> None:
        self._ended()
        readers, self._readers = self._readers, {}
        error = None if task.cancelled() else task.exception()
        for reader in readers:
            reader.failed(error or RuntimeError("a watch of the store has ended by itself"))

    async def _run(self) -> None:
        lines: list[tuple[int, bytes]] = []
        level = False
        async with followed(self._objects, self._show.scope, since=self._told, level=True) as events:
            async for event in events:
                before, level = level, isinstance(event, Bookmark)
                if isinstance(event, Change) and (line := self._show.line(event)):
                    lines.append((event.revision, line))
                if level or _full(lines):
                    # Level twice, with nothing between: the store marks how far it has come.
                    await self._tell(lines, event.revision, due=before and level)
                    lines = []

    async def _tell(self, lines: Sequence[tuple[int, bytes]], until: int, *, due: bool) -> None:
        """Tell all who are here now: who joins from here on was told it already."""
        self._told = until
        batch = Batch(
            lines=lines,
            whole=chunk(b"".join(line for _, line in lines)),
            until=until,
            at=self._clock.monotonic(),
            bookmark=chunk(self._show.bookmark(until)) if due else b"",
        )
        readers = list(self._readers)
        step = max(1, min(FAN, STEP_BYTES // max(1, len(batch.whole))))
        for start in range(0, len(readers), step):
            await asyncio.sleep(0)  # what the same commit woke runs before, also who learns that rights were lost
            for reader in readers[start : start + step]:
                if reader in self._readers and reader.revision < until:
                    reader.hear(batch)


def _full(lines: Sequence[tuple[int, bytes]]) -> bool:
    return len(lines) >= BATCH_MAX or sum(len(line) for _, line in lines) >= BATCH_BYTES_MAX


class Channels:
    """Those of an api, by what they show."""

    def __init__(self, objects: Objects, clock: Clock, *, flows: Flows) -> None:
        self._objects = objects
        self._clock = clock
        self._flows = flows
        self._open: dict[Hashable, Channel] = {}

    def __len__(self) -> int:
        return len(self._open)

    def join(self, show: Show, reader: Reader) -> Channel | None:
        """The channel that tells the reader what lies behind its revision; None where it has to come nearer by
        itself."""
        channel = self._open.get(show.same)
        if channel is None:
            channel = self._open[show.same] = self._begun(show, reader.revision)
        return channel if channel.join(reader) else None

    def _begun(self, show: Show, since: int) -> Channel:
        def ended() -> None:
            if self._open.get(show.same) is channel:
                del self._open[show.same]

        channel = Channel(show, since, objects=self._objects, clock=self._clock, ended=ended)
        channel.begin(self._flows)
        return channel
