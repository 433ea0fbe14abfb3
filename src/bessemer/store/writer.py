"""The one writer: operations run in groups, a savepoint each, and one commit for all.

An operation is a plain function ``op(tx) -> value``; async code awaits `Committer.submit`. Its future resolves after
the commit, so what was answered is on disk. Whoever has patience waits for the next group, or for others like it. The
revision counter moves in the committing transaction: the order of commits is the order of revisions, and a refused
operation leaves no gap.

It knows no table but the counter. It is not for reading: see `reader`.
"""

from __future__ import annotations

import asyncio
import math
import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from sqlalchemy import bindparam, select, update

from bessemer.core.clock import Clock
from bessemer.core.errors import BessemerError, Unavailable
from bessemer.store.feed import Entry
from bessemer.store.metrics import Metrics
from bessemer.store.schema import counters, of
from bessemer.store.sqlite import Session, Statement

T = TypeVar("T")

GROUP_MAX = 256
PENDING_MAX = 16_384

COUNTER = select(counters.c.value).where(of(counters.c.name))
SET_COUNTER = update(counters).values(value=bindparam("value")).where(of(counters.c.name))
_STEP = update(counters).values(value=counters.c.value + 1).where(of(counters.c.name)).returning(counters.c.value)

_MISTAKES = (TypeError, ValueError, LookupError, ArithmeticError, AttributeError, AssertionError, RuntimeError)
"""What a wrong operation raises: it fails alone, its neighbours in the group do not."""


class Tx:
    """The open transaction, as an operation sees it."""

    def __init__(self, session: Session, clock: Clock) -> None:
        self._session = session
        self._clock = clock
        self.revision = 0
        """The last one taken here; 0 before the first."""
        self.entries: list[Entry] = []
        self._counted = 0

    @property
    def now(self) -> float:
        """The server's wall clock."""
        return self._clock.now()

    def run(self, statement: Statement, **values: Any) -> int:
        """Write; answers how many rows it met."""
        return self._session.execute(statement, values).rowcount

    def one(self, statement: Statement, **values: Any) -> Any:
        """The first row as a tuple, or None."""
        return self._session.execute(statement, values).fetchone()

    def all(self, statement: Statement, **values: Any) -> list[Any]:
        """Every row."""
        return self._session.execute(statement, values).fetchall()

    def next_revision(self) -> int:
        """The number of the change that the caller is about to write. The first of a group is taken from the counter,
        which the group's end brings up to the last."""
        if self.revision:
            self.revision += 1
        else:
            self.revision = self._counted = self.one(_STEP, of_name="revision")[0]
        return self.revision

    def count(self) -> None:
        """Bring the counter up to the revisions that were taken."""
        if self.revision > self._counted:
            self.run(SET_COUNTER, of_name="revision", value=self.revision)


Operation = Callable[[Tx], T]


@dataclass(slots=True)
class _Item(Generic[T]):
    operation: Operation[T]
    future: asyncio.Future[T]
    loop: asyncio.AbstractEventLoop
    dry_run: bool
    due: float
    value: Any = None
    error: Exception | None = None


@dataclass(slots=True)
class _Group:
    items: list[_Item[Any]]
    last: bool
    entries: list[Entry] = field(default_factory=list)
    revision: int = 0


class Committer:
    """Owns the writing connection and its thread.

    ``publish(entries, revision)`` is called in the event loop after each commit, before the writers hear of it.
    """

    def __init__(
        self,
        session: Session,
        *,
        clock: Clock,
        metrics: Metrics,
        publish: Callable[[list[Entry], int], None],
    ) -> None:
        self._session = session
        self._clock = clock
        self._metrics = metrics
        self._publish = publish
        self._mistakes: tuple[type[Exception], ...] = (BessemerError, *session.refusals, *_MISTAKES)
        self._queue: queue.SimpleQueue[_Item[Any] | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="store-writer", daemon=True)
        self._thread.start()

    async def submit(self, operation: Operation[T], *, dry_run: bool = False, patience: float = 0.0) -> T:
        """Run ``operation`` in the next group, which need not form for its sake within ``patience`` seconds.
        ``dry_run`` answers its value and undoes it.

        Raises what the operation raises, and Unavailable where the database cannot take it: then nothing was written.
        """
        if self._closed:
            raise Unavailable("the store is closed")
        if self._queue.qsize() >= PENDING_MAX:
            raise Unavailable("more writes wait than the store takes on; try again")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._queue.put(_Item(operation, future, loop, dry_run, self._clock.monotonic() + patience))
        return await future

    def close(self) -> None:
        """Finish what is queued, then end the thread and the connection."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
            self._thread.join()
            self._session.close()

    # --- in the writer's thread ---------------------------------------------------------------------------------

    def _work(self) -> None:
        last = False
        while not last:
            group = self._gather()
            last = group.last
            if group.items:
                self._commit(group)
                self._answer(group)

    def _gather(self) -> _Group:
        """What waits, once the first of it is due; waits for that, and for ever where nothing does."""
        group, due = _Group([], last=False), math.inf
        while len(group.items) < GROUP_MAX:
            wait = max(0.0, due - self._clock.monotonic()) if group.items else None
            try:
                item = self._queue.get(timeout=wait)
            except queue.Empty:
                break
            if item is None:
                group.last = True
                break
            group.items.append(item)
            due = min(due, item.due)
        return group

    def _commit(self, group: _Group) -> None:
        tx = Tx(self._session, self._clock)
        started = self._clock.monotonic()
        try:
            self._session.begin()
            if len(group.items) == 1:
                stands = self._attempt(group.items[0], tx)  # the transaction is its savepoint
            else:
                standing = [self._within(item, tx) for item in group.items]
                stands = any(standing)
            if stands:
                tx.count()
                self._session.commit()
                group.entries, group.revision = tx.entries, tx.revision
            else:
                self._session.rollback()
        except self._session.faults as error:
            self._abandon(group, error)
            return
        self._metrics.ended(len(group.items), len(group.entries), seconds=self._clock.monotonic() - started)

    def _within(self, item: _Item[Any], tx: Tx) -> bool:
        """`_attempt`, of which nothing is left where it is not to stand."""
        revision, entries = tx.revision, len(tx.entries)
        self._session.savepoint()
        stands = self._attempt(item, tx)
        if stands:
            self._session.keep()
        else:
            self._session.undo()
            tx.revision = revision
            del tx.entries[entries:]
        return stands

    def _attempt(self, item: _Item[Any], tx: Tx) -> bool:
        """Run one operation; whether what it wrote is to stand. Raises where the database is not well any more."""
        try:
            item.value = item.operation(tx)
        except self._mistakes as error:
            item.error = error
        except self._session.faults as error:
            if not self._session.alive:
                raise
            item.error = _unavailable(error)
        return item.error is None and not item.dry_run

    def _abandon(self, group: _Group, error: Exception) -> None:
        """Nothing of the group was written: each of its writers hears so."""
        try:
            self._session.rollback()
        except self._session.faults:
            pass  # the transaction is gone already; the next BEGIN says whether the database is well
        self._metrics.failed()
        for item in group.items:
            item.error = _unavailable(error)

    def _answer(self, group: _Group) -> None:
        loops: dict[asyncio.AbstractEventLoop, list[_Item[Any]]] = {}
        for item in group.items:
            loops.setdefault(item.loop, []).append(item)
        for loop, items in loops.items():
            try:
                loop.call_soon_threadsafe(self._deliver, group, items)
            except RuntimeError:
                continue  # that loop has ended; nobody listens there

    def _deliver(self, group: _Group, items: list[_Item[Any]]) -> None:
        entries, group.entries = group.entries, []
        if entries:
            self._publish(entries, group.revision)
            # A turn later, so that who watches has sent the change before its writer takes up his answer.
            items[0].loop.call_soon(_resolve, items)
        else:
            _resolve(items)


def _resolve(items: list[_Item[Any]]) -> None:
    for item in items:
        if item.future.done():
            continue
        if item.error is None:
            item.future.set_result(item.value)
        else:
            item.future.set_exception(item.error)


def _unavailable(error: Exception) -> Unavailable:
    words = "the disk of the store is full" if "full" in str(error) else "the store cannot write now"
    return Unavailable(f"{words}; nothing was changed", internal=f"{type(error).__name__}: {error}")


def read_counter(session: Session, name: str, *, missing: int = 0) -> int:
    """A counter through any connection."""
    row: Mapping[int, int] | None = session.execute(COUNTER, {"of_name": name}).fetchone()
    return row[0] if row is not None else missing
