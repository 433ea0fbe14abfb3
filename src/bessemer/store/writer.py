"""The one writer: operations run in groups, and one commit for all.

An operation is a plain function ``op(tx) -> value``; async code awaits `Committer.submit`. Its future resolves after
the commit, so what was answered is on disk. Whoever has patience waits for the next group, or for others like it. The
revision counter moves in the committing transaction: the order of commits is the order of revisions, and a refused
operation leaves no gap.

A group's operations run in the event loop, and its commit, which waits for the disk, in a thread of its own; meanwhile
the next group gathers. The driver lets go of the interpreter's lock at every statement: a thread that ran them beside
a busy loop would queue for it a dozen times per operation, which costs more than the statements do. What takes long
runs apart, in the thread as a whole, so that the loop goes on.

Where each statement waits for a network, a group runs in the event loop if its operations said beforehand what they
will ask (`flight`), and in the thread if not: what follows one another and is of one sort is a group.

What a group does in its transaction is `runner`'s. It is not for reading: see `reader`.
"""

from __future__ import annotations

import asyncio
import math
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from bessemer.core.clock import Clock
from bessemer.core.errors import Unavailable
from bessemer.store.feed import Entry
from bessemer.store.flight import Flight
from bessemer.store.known import Look
from bessemer.store.metrics import Metrics
from bessemer.store.runner import Group, Item, Operation, Runner
from bessemer.store.session import Remote, Session

T = TypeVar("T")

GROUP_MAX = 256
FEW = 8
"""As many claims or records an operation writes in the event loop; what writes more runs apart."""
PENDING_MAX = 16_384


class Committer:
    """Owns the writing connection, which the event loop and the thread have by turns: while a group is in the thread,
    the loop begins none. The first event loop that writes has the store.

    ``publish(entries, revision)`` is called in the event loop after each commit, before the writers hear of it.
    ``about(entries)`` is called there before each commit, too, with what it is going to change (None: whatever it is),
    and with what it has changed before anybody hears of it; then with nothing.
    """

    def __init__(
        self,
        session: Session,
        *,
        clock: Clock,
        metrics: Metrics,
        publish: Callable[[list[Entry], int], None],
        about: Callable[[Sequence[Entry] | None], None] = lambda _: None,
    ) -> None:
        self._session = session
        self._clock = clock
        self._queue: queue.SimpleQueue[Group | None] = queue.SimpleQueue()
        self._runner = Runner(session, clock, metrics=metrics)
        self._flight: Flight | None = None
        if isinstance(session, Remote):
            self._flight = Flight(session, self._runner, aside=self._queue.put, left=self._back, landed=self._landed)
        self._publish = publish
        self._about = about
        self._waiting: deque[Item[Any]] = deque()
        self._due = math.inf
        self._turn: asyncio.Handle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._flying: Group | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="store-writer", daemon=True)
        self._thread.start()

    @property
    def foresees(self) -> bool:
        """Whether it is of use to say beforehand what an operation will ask."""
        return self._flight is not None

    async def submit(
        self,
        operation: Operation[T],
        *,
        dry_run: bool = False,
        patience: float = 0.0,
        apart: bool = False,
        looks: Sequence[Look] | None = None,
    ) -> T:
        """Run ``operation`` in the next group, which need not form for its sake within ``patience`` seconds.
        ``dry_run`` answers its value and undoes it. ``apart`` is for one that may take many milliseconds. ``looks`` are
        all that it will ask by `Tx.look`, if it asks nothing else; None where that is not known.

        Raises what the operation raises, and Unavailable where the database cannot take it: then nothing was written.
        """
        if self._closed:
            raise Unavailable("the store is closed")
        if len(self._waiting) >= PENDING_MAX:
            raise Unavailable("more writes wait than the store takes on; try again")
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif loop is not self._loop:
            raise RuntimeError("a store is written to from one event loop")
        future: asyncio.Future[T] = loop.create_future()
        self._waiting.append(Item(operation, future, dry_run, apart, looks))
        whole = len(self._waiting) >= GROUP_MAX
        due = -math.inf if whole else self._clock.monotonic() + patience
        if due < self._due:
            self._due = due
            self._plan(loop)
        return await future

    def close(self) -> None:
        """Finish what is queued, then end the thread and the connection."""
        if not self._closed:
            self._closed = True
            if self._flight is not None:
                self._flight.finish()
            if self._waiting:
                self._queue.put(Group([*self._waiting]))
                self._waiting.clear()
            self._queue.put(None)
            self._thread.join()
            self._session.close()

    # --- in the event loop --------------------------------------------------------------------------------------

    def _plan(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let the next group begin once the first of it is due."""
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        if self._waiting and self._flying is None:
            wait = self._due - self._clock.monotonic()
            self._turn = loop.call_later(wait, self._begin, loop) if wait > 0 else loop.call_soon(self._begin, loop)

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take what waits, run it here unless it is long, and hand it to the thread where something is to be kept."""
        self._turn = None
        group = Group(self._gather())
        if not group.items:
            return  # the store was closed meanwhile
        if self._flight is None and not group.items[0].apart:
            self._back(self._runner.run(group, apart=False))
        self._due = -math.inf if self._waiting else math.inf
        if group.ran and not group.stands:
            self._landed(group, loop)
            return
        self._flying = group
        self._about(group.entries if group.ran else None)
        if self._flight is not None and group.items[0].foreseen and not self._runner.careful:
            self._flight.begin(group, loop)
        else:
            self._queue.put(group)

    def _back(self, items: list[Item[Any]]) -> None:
        """They did not get their turn, and are the first of the next group."""
        self._waiting.extendleft(reversed(items))
        if items:
            self._due = -math.inf

    def _gather(self) -> list[Item[Any]]:
        """As many as a group takes; one that is long is a group by itself, and where that decides who runs them, those
        that were foreseen are."""
        items: list[Item[Any]] = []
        while self._waiting and len(items) < GROUP_MAX:
            first = self._waiting[0]
            if items and (first.apart or (self._flight is not None and first.foreseen != items[0].foreseen)):
                break
            items.append(self._waiting.popleft())
            if first.apart:
                break
        return items

    def _landed(self, group: Group, loop: asyncio.AbstractEventLoop) -> None:
        """Tell those who watch, then those who wrote. Whatever comes of that, the next group begins."""
        self._flying = None
        self._about(group.entries)
        self._about(())
        try:
            if group.entries:
                self._publish(group.entries, group.revision)
        finally:
            # A turn later, so that who watches has sent the change before its writer takes up his answer.
            with suppress(RuntimeError):  # the loop has ended: nobody listens there
                loop.call_soon(_resolve, group.items)
                self._plan(loop)

    # --- in the thread ------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while (group := self._queue.get()) is not None:
            if not group.ran:
                self._runner.run(group, apart=True)
            if group.stands:
                self._runner.commit(group)
            loop = group.items[0].future.get_loop()
            with suppress(RuntimeError):  # the loop has ended: nobody listens there
                loop.call_soon_threadsafe(self._landed, group, loop)


def _resolve(items: list[Item[Any]]) -> None:
    for item in items:
        if item.future.done():
            continue
        if item.error is None:
            item.future.set_result(item.value)
        else:
            item.future.set_exception(item.error)
