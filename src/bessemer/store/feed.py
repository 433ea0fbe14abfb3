"""Changes on their way to those who watch, in one process.

Each commit hands its entries to `Feed.publish` in the event loop. A watcher has a bounded queue; one that is too slow
loses its queue, never a change: it reads history from where it stands. Invariant: what a watcher is given has strictly
growing revisions, each exactly once.

It does not read the database: `watch` does.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from bessemer.core.ports import Scope
from bessemer.core.resource import Change, Key
from bessemer.store.documents import read_labels
from bessemer.store.metrics import Metrics

QUEUE_MAX = 1_024
QUIET_MAX = 10_000
"""Revisions after which every watcher hears a bookmark: well within history, and seldom, for there may be thousands."""

CHANGE_TYPES: tuple[Literal["ADDED", "MODIFIED", "DELETED"], ...] = ("ADDED", "MODIFIED", "DELETED")


@dataclass(slots=True)
class Entry:
    """A change and the labels after it, as the text of their column, and its generation, where it was written here."""

    change: Change
    labels: str
    generation: int = 0


def seen(scope: Scope, entry: Entry) -> Change | None:
    """The change as somebody with that scope sees it: what leaves a selector is DELETED, what enters it ADDED."""
    change = entry.change
    key = change.key
    if (
        key.kind != scope.kind
        or (scope.namespace is not None and key.namespace != scope.namespace)
        or (scope.name is not None and key.name != scope.name)
        or (scope.host is not None and change.host != scope.host)
        or (scope.namespaces is not None and key.namespace not in scope.namespaces)
        or (scope.names is not None and key.name not in scope.names)
        or (scope.places is not None and not _among(scope.places, key))
    ):
        return None
    if not scope.labels:
        return change
    after = selects(scope.labels, read_labels(entry.labels))
    before = change.labels_before is not None and selects(scope.labels, change.labels_before)
    if change.type != "MODIFIED" or before == after:
        return change if after else None
    return replace(change, type="ADDED" if after else "DELETED")


def _among(places: Mapping[str, frozenset[str] | None], key: Key) -> bool:
    names = places.get(key.namespace, frozenset())
    return names is None or key.name in names


def selects(wanted: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Whether every label is as wanted."""
    return all(labels.get(name) == value for name, value in wanted.items())


class Watcher:
    """One watch: what waits for it, and whether it fell behind."""

    __slots__ = ("_waiting", "due", "ended", "lagging", "queue", "scope")

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.queue: deque[Change] = deque()
        self.lagging = False
        self.ended = False
        """What it has seen is not what happened: it must list again."""
        self.due = False
        """A bookmark is wanted once the queue is empty."""
        self._waiting: asyncio.Future[None] | None = None

    def offer(self, entry: Entry) -> bool:
        """Queue the change if it is in scope. False where the queue was full and has been dropped."""
        if self.lagging:
            return True
        change = seen(self.scope, entry)
        if change is None:
            return True
        if len(self.queue) >= QUEUE_MAX:
            self.queue.clear()
            self.lagging = True
            self.wake()
            return False
        self.queue.append(change)
        self.wake()
        return True

    def wake(self) -> None:
        """Let `wait` return."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def wait(self) -> None:
        """Until there is something to do."""
        self._waiting = asyncio.get_running_loop().create_future()
        try:
            await self._waiting
        finally:
            self._waiting = None


Bucket = tuple[str, str, str]


class Feed:
    """Who watches, found by kind, and by host, name or namespace where a watcher wants one only: thousands of agents
    do, and a tenant's writes shall cost the same whoever watches other tenants' projects."""

    def __init__(self, revision: int, metrics: Metrics) -> None:
        self.revision = revision
        self.heard_at = math.inf
        """All that was committed by then (monotonic) has been offered: here all is, since nobody else commits."""
        self._metrics = metrics
        self._buckets: dict[Bucket, set[Watcher]] = {}

    def join(self, scope: Scope) -> Watcher:
        """A new watcher: from now on every change is offered to it."""
        watcher = Watcher(scope)
        self._buckets.setdefault(_bucket(scope), set()).add(watcher)
        self._metrics.watchers += 1
        return watcher

    def leave(self, watcher: Watcher) -> None:
        """The end of a watch."""
        bucket = _bucket(watcher.scope)
        self._buckets[bucket].discard(watcher)
        if not self._buckets[bucket]:
            del self._buckets[bucket]
        self._metrics.watchers -= 1

    def publish(self, entries: Sequence[Entry], revision: int) -> None:
        """Offer the changes of one commit."""
        self.revision = revision
        for entry in entries:
            kind, namespace, name = entry.change.key
            self._offer((kind, "", ""), entry)
            self._offer((kind, "name", name), entry)
            if namespace:
                self._offer((kind, "namespace", namespace), entry)
            if entry.change.host:
                self._offer((kind, "host", entry.change.host), entry)
        if revision // QUIET_MAX != (revision - len(entries)) // QUIET_MAX:
            self.mark()

    def _offer(self, bucket: Bucket, entry: Entry) -> None:
        for watcher in self._buckets.get(bucket, ()):
            if not watcher.offer(entry):
                self._metrics.watcher_overflows += 1

    def everybody(self) -> Iterator[Watcher]:
        """All who watch."""
        for watchers in self._buckets.values():
            yield from watchers

    def mark(self) -> None:
        """Let every watcher bookmark the present revision."""
        for watcher in self.everybody():
            watcher.due = True
            watcher.wake()


def _bucket(scope: Scope) -> Bucket:
    if scope.host:
        return (scope.kind, "host", scope.host)
    if scope.name:
        return (scope.kind, "name", scope.name)
    if scope.namespace:
        return (scope.kind, "namespace", scope.namespace)
    return (scope.kind, "", "")
