"""The loop, put together: feeds fill the queue, workers empty it, leases say which kinds are ours."""

from __future__ import annotations

import asyncio
import os
import random
import uuid
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import structlog
from prometheus_client import CollectorRegistry

from bessemer.core.clock import Clock
from bessemer.core.pace import Pace
from bessemer.core.ports import Events, Leases, Watchable, Writer
from bessemer.core.resource import Change, Key, Kind, tenant_of
from bessemer.loop.feed import Feed
from bessemer.loop.leadership import LEASE_SECONDS, Leadership
from bessemer.loop.metrics import Metrics
from bessemer.loop.queue import Queue
from bessemer.loop.work import Access, Work

GRACE_SECONDS = 5.0
_SWEEP_SECONDS = 30.0

C = TypeVar("C")

log = structlog.get_logger(__name__)


class Source(Access, Watchable, Protocol):
    """What a loop needs of ``ports.Objects``: get, replace and watch. An agent's intent on disk offers the same."""


@dataclass(eq=False)
class Loop(Generic[C]):
    """Runs ``kinds`` over ``objects``. ``ctx`` is handed to them unopened; ``writer`` signs what the loop writes.

    A kind without ``reconcile`` and ``finalize`` is skipped. ``metrics`` may be shared by several loops of a process;
    ``holder`` tells this loop from others that compete for its leases; where none can (one process owns the store), a
    name that outlives the process takes its leases back at once after a crash. ``lease_seconds`` is how long a kind
    waits after the loop that led it has vanished.
    """

    kinds: Sequence[Kind[C, Any]]
    ctx: C
    _: KW_ONLY
    objects: Source
    leases: Leases
    events: Events | None
    clock: Clock
    writer: Writer
    metrics: Metrics | None = None
    workers: int = 16
    holder: str = field(default_factory=lambda: f"{os.getpid()}-{uuid.uuid4().hex[:8]}")
    lease_seconds: float = LEASE_SECONDS
    jitter: Callable[[], float] = random.random

    def __post_init__(self) -> None:
        driven = {k.name: k for k in self.kinds if k.reconcile is not None or k.finalize is not None}
        metrics = self.metrics or Metrics(CollectorRegistry())
        children = {name: metrics.of(name) for name in driven}
        self._driven = driven
        self._children = children
        self._pace = Pace(self.clock)
        self._queue = Queue(self.clock, children)
        self._leadership = Leadership(
            self.leases,
            holder=self.holder,
            clock=self.clock,
            metrics=children,
            gained=self._lead,
            seconds=self.lease_seconds,
        )
        self._work: Work[C] = Work(
            kinds=driven,
            ctx=self.ctx,
            objects=self.objects,
            events=self.events,
            clock=self.clock,
            writer=self.writer,
            metrics=children,
            queue=self._queue,
            leadership=self._leadership,
            jitter=self.jitter,
        )
        self._metrics = metrics
        self._names: dict[str, set[Key]] = {name: set() for name in driven}
        self._listed: dict[str, set[Key]] = {}
        self._unsynced = {*driven, *(source for kind in driven.values() for source in kind.wakes)}
        self._sources = sorted(self._unsynced)
        self._woken_by = {name: [kind for kind in driven.values() if name in kind.wakes] for name in self._sources}
        self._synced = asyncio.Event()
        if not self._unsynced:
            self._synced.set()
        self._stop = asyncio.Event()
        self._stopped = asyncio.Event()
        self._stopped.set()

    async def run(self) -> None:
        """Work until `stop`, or until cancelled. Raises what a part of the loop itself raised: that is a defect."""
        self._stopped.clear()
        try:
            async with asyncio.TaskGroup() as group:
                steady = [group.create_task(_paced(feed, self._pace)) for feed in self._feeds()]
                steady.append(group.create_task(self._leadership.run()))
                steady.append(group.create_task(self._sweep()))
                workers = [group.create_task(self._worker()) for _ in range(self.workers)]
                await self._stop.wait()
                for task in steady:
                    task.cancel()
                await self._drain(workers)
            await self._leadership.release()
        finally:
            self._queue.close()
            self._stopped.set()

    async def stop(self) -> None:
        """End `run`: what is at work may finish within `GRACE_SECONDS`, leases are let go."""
        self._stop.set()
        await self._stopped.wait()

    async def idle(self) -> None:
        """Return when every feed has listed and no name waits for a worker or is worked on. Timers don't count."""
        await self._leadership.asked()
        await self._synced.wait()
        await self._queue.quiet()

    def wake(self, key: Key) -> None:
        """Signal a name from outside, as an agent does when a guest dies."""
        self._queue.add(key)

    def _feeds(self) -> list[Feed]:
        return [
            Feed(
                source,
                self.objects,
                clock=self.clock,
                changed=self._changed,
                synced=partial(self._list_ended, source),
            )
            for source in self._sources
        ]

    async def _worker(self) -> None:
        # Until every feed has listed once, a reconcile could read a world whose later changes nobody would signal.
        await self._synced.wait()
        while not self._stop.is_set():
            key, waited = await self._queue.take()
            self._children[key.kind].wait.observe(waited)
            try:
                await self._pace.run(self._work.turn(key), group=key.kind, member=tenant_of(key.namespace))
            finally:
                self._queue.finish(key, self._work.seen(key))

    async def _drain(self, workers: list[asyncio.Task[None]]) -> None:
        """Let what is at work end, within the grace; idle workers are cancelled at once."""
        quiet = asyncio.create_task(self._queue.rest())
        await asyncio.wait({quiet}, timeout=GRACE_SECONDS)
        quiet.cancel()
        for worker in workers:
            worker.cancel()

    async def _sweep(self) -> None:
        while True:
            await self.clock.sleep(_SWEEP_SECONDS)
            self._work.cancel_overdue()

    async def _changed(self, change: Change, live: bool) -> None:
        """A change of one kind: its own name, and the names of other kinds that it concerns."""
        key = change.key
        if key.kind in self._driven:
            self._note(change, live)
        if not live:
            return
        for kind in self._woken_by[key.kind]:
            await self._wake(kind, change)

    def _note(self, change: Change, live: bool) -> None:
        key = change.key
        if change.type == "DELETED":
            self._names[key.kind].discard(key)
            self._work.forget(key)
            return
        self._names[key.kind].add(key)
        if not live:
            self._listed.setdefault(key.kind, set()).add(key)
        if change.revision > self._work.seen(key) and self._leadership.fence(key.kind) is not None:
            self._queue.add(key, change.revision)

    async def _wake(self, kind: Kind[C, Any], change: Change) -> None:
        if self._leadership.fence(kind.name) is None:
            return
        try:
            async for key in kind.wakes[change.key.kind](self.ctx, change):
                self._queue.add(key)
        except Exception:  # A kind's defect; its objects are looked at again on their timers.
            self._children[kind.name].error("WakeFailed")
            log.exception("wake raised", kind=kind.name, source=change.key.kind)

    async def _list_ended(self, source: str, again: bool) -> None:
        """A list is complete. After a second one, what vanished unseen is forgotten, and who depends on it is woken."""
        if source in self._driven:
            listed = self._listed.pop(source, set())
            for gone in self._names[source] - listed:
                self._names[source].discard(gone)
                self._work.forget(gone)
        if again:
            for kind in self._driven.values():
                if kind.name == source:
                    self._metrics.relists.labels(source).inc()
                if source in kind.wakes:
                    self._wake_all(kind.name)
        self._unsynced.discard(source)
        if not self._unsynced:
            self._synced.set()

    def _lead(self, kind: str) -> None:
        """The kind is ours now."""
        self._work.take_over(kind)
        self._wake_all(kind)

    def _wake_all(self, kind: str) -> None:
        """Everything of the kind may have changed."""
        for key in self._names[kind]:
            self._queue.add(key)


async def _paced(feed: Feed, pace: Pace) -> None:
    await pace.run(feed.run(), member=feed.kind)
