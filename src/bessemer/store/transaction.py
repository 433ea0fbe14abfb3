"""One group of operations through one transaction, and a revision that moves with the commit.

A refused operation is undone alone and leaves no gap in the revisions; a database that is not well fails the group, and
each of its writers hears so. Nearly all operations stand, or are refused before they wrote anything: so none gets a
savepoint until one would have to be undone, and then the group is run again with a savepoint for each (ADR 24). An
operation may thus run several times, and changes nothing but through its transaction. It neither waits nor chooses what
belongs to a group: see `writer`. It knows no table but the counter.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from sqlalchemy import bindparam, select, update

from bessemer.core.clock import Clock
from bessemer.core.errors import BessemerError, Unavailable
from bessemer.store.feed import Entry
from bessemer.store.metrics import Metrics
from bessemer.store.schema import counters, of
from bessemer.store.session import ReadSession, Session, Statement, Unsettled

T = TypeVar("T")

GROUP_SECONDS = 0.005
"""An operation more than this after its group's first goes into the next: the loop has others to serve."""

CAREFUL_SECONDS = 1.0
"""After a group that ran twice, so that whoever is refused all the time costs the others a savepoint and no more."""

COUNTER = select(counters.c.value).where(of(counters.c.name))
SET_COUNTER = update(counters).values(value=bindparam("value")).where(of(counters.c.name))
_STEP = update(counters).values(value=counters.c.value + 1).where(of(counters.c.name)).returning(counters.c.value)


OPERATION_SECONDS = 0.01
"""What an operation may take in the event loop; where it takes longer, it is undone and runs apart."""


_OF_ROWS: tuple[type[Exception], ...] = (BessemerError, ValueError, TypeError, OverflowError)
"""What a row that no database takes raises on this side of the wire."""

Mark = tuple[int, int, tuple[int, str] | None, int, int]


class TooLong(Exception):
    """An operation ran out of the time that it has in the event loop. No operation catches it."""


class Again(Exception):
    """What one operation of a group wrote is not to stand, and cannot be told from what the others did."""


class Tx:
    """The open transaction, as an operation sees it."""

    def __init__(self, session: Session, clock: Clock, *, careful: bool) -> None:
        self._session = session
        self._clock = clock
        self._careful = careful
        self._later: list[tuple[Statement, Mapping[str, Any]]] = []
        self.until = math.inf
        """When the operation that runs has had its time."""
        self.revision = 0
        """The last one taken here; 0 before the first."""
        self.entries: list[Entry] = []
        self.trail: tuple[int, str] | None = None
        """Number and digest of the last row of the audit trail, once it is known here."""
        self.written = 0
        """How many statements have written, or were refused by the database."""
        self._counted = 0

    @property
    def now(self) -> float:
        """The server's wall clock."""
        return self._clock.now()

    @property
    def server_time(self) -> float:
        """The clock of the server that all processes share, as the transaction began; where there is none, the wall
        clock."""
        time = self._session.time
        return self.now if time is None else time

    def run(self, statement: Statement, **values: Any) -> int:
        """Write; answers how many rows it met."""
        met: int = self._ask(statement, values).rowcount
        return met

    def add(self, statement: Statement, **values: Any) -> None:
        """Insert a row that no operation reads before the transaction ends: those of a group go in together, which
        costs a call for each table, and a remote database one answer. See `settle` for who does read them."""
        if self._careful:
            self.run(statement, **values)
        else:
            self._later.append((statement, values))

    def settle(self) -> None:
        """Write what `add` was given."""
        tables: dict[Statement, list[Mapping[str, Any]]] = {}
        for statement, values in self._later:
            tables.setdefault(statement, []).append(values)
        self._later.clear()
        for statement, rows in tables.items():
            self.written += 1
            self._session.execute_each(statement, rows)

    def one(self, statement: Statement, **values: Any) -> Any:
        """The first row as a tuple, or None."""
        return self._ask(statement, values).fetchone()

    def all(self, statement: Statement, **values: Any) -> list[Any]:
        """Every row."""
        rows: list[Any] = self._ask(statement, values).fetchall()
        return rows

    def next_revision(self) -> int:
        """The number of the change that the caller is about to write. The first of a group is taken from the counter,
        which the group's end brings up to the last."""
        if self.revision:
            self.revision += 1
        else:
            self.revision = self._counted = self.one(_STEP, of_name="revision")[0]
        return self.revision

    def mark(self) -> Mark:
        """Where it stands, for `back`."""
        return (self.revision, len(self.entries), self.trail, len(self._later), self.written)

    def back(self, mark: Mark) -> bool:
        """Forget what was noted since. Whether that is all: else something was written, too."""
        self.revision, entries, self.trail, later, written = mark
        del self.entries[entries:], self._later[later:]
        return self.written == written

    def end(self) -> None:
        """The group ends: write what was put off, and bring the counter up to the revisions that were taken."""
        self.until = math.inf
        self.settle()
        if self.revision > self._counted:
            self.run(SET_COUNTER, of_name="revision", value=self.revision)

    def _ask(self, statement: Statement, values: Mapping[str, Any]) -> Any:
        if self._clock.monotonic() > self.until:
            raise TooLong
        if statement.is_dml:
            self.written += 1
        return self._session.execute(statement, values)


Operation = Callable[[Tx], T]


@dataclass(slots=True)
class Item(Generic[T]):
    """One operation, and who waits for what it answers or raises. ``apart``: see `writer.Committer.submit`."""

    operation: Operation[T]
    future: asyncio.Future[T]
    dry_run: bool
    apart: bool
    value: Any = None
    error: Exception | None = None


@dataclass(slots=True)
class Group:
    """Operations on their way through one transaction. ``stands``: there is something to commit."""

    items: list[Item[Any]]
    started: float = 0.0
    ran: bool = False
    stands: bool = False
    entries: list[Entry] = field(default_factory=list)
    revision: int = 0


class Runner:
    """Runs groups on the writing connection, of which there is one, and which one thread has at a time."""

    def __init__(self, session: Session, clock: Clock, *, metrics: Metrics) -> None:
        self._session = session
        self._clock = clock
        self._metrics = metrics
        self._careful_until = -math.inf

    def run(self, group: Group, *, apart: bool) -> list[Item[Any]]:
        """Run the group's operations in a transaction, which stays open where something stands. Unless it runs apart
        it has little time: answers those for which there was none. Where another has the database, none is run."""
        items = group.items
        careful = any(item.dry_run for item in items) or self._clock.monotonic() < self._careful_until
        try:
            while True:
                group.started = self._clock.monotonic()
                if not self._session.begin(wait=apart):
                    group.ran, group.items = False, items
                    return []
                try:
                    self._run(group, items, apart=apart, careful=careful)
                    break
                except Again:
                    self._session.rollback()
                    careful, self._careful_until = True, group.started + CAREFUL_SECONDS
        except self._session.faults + self._session.refusals as error:
            group.ran, group.items = True, items
            self._abandon(group, error)
        return items[len(group.items) :]

    def _run(self, group: Group, items: list[Item[Any]], *, apart: bool, careful: bool) -> None:
        """Raises Again where it would have to be careful."""
        group.ran, group.items, group.stands = True, [], False
        tx = Tx(self._session, self._clock, careful=careful)
        try:
            self._each(group, tx, items=items, apart=apart, careful=careful)
            if group.stands:
                tx.end()
                group.entries, group.revision = tx.entries, tx.revision
        except TooLong:
            group.items, group.stands = [], False
        except self._session.refusals + _OF_ROWS as error:
            if careful:
                raise
            raise Again from error  # of a row that had been put off: its operation shall hear so, alone
        if not group.stands:
            self._session.rollback()
            self._ended(group)

    def commit(self, group: Group) -> None:
        """Make what stands durable; where that fails, nothing of it was written."""
        try:
            self._session.commit()
        except self._session.faults as error:
            self._abandon(group, error)
            return
        self._ended(group)

    def _each(self, group: Group, tx: Tx, *, items: list[Item[Any]], apart: bool, careful: bool) -> None:
        """One after the other while there is time; the others leave the group, one that was too long as the first.
        Raises TooLong where it takes all others along."""
        for item in items:
            now = self._clock.monotonic()
            if group.items and not apart and now > group.started + GROUP_SECONDS:
                break
            tx.until = math.inf if apart else now + OPERATION_SECONDS
            try:
                group.stands |= self._within(item, tx) if careful else self._without(item, tx, alone=len(items) == 1)
            except TooLong:
                item.apart = True
                if not careful:
                    raise
                break
            group.items.append(item)

    def _ended(self, group: Group) -> None:
        took = self._clock.monotonic() - group.started
        self._metrics.ended(len(group.items), len(group.entries), seconds=took)

    def _without(self, item: Item[Any], tx: Tx, *, alone: bool) -> bool:
        """`_attempt`; raises Again where something of it is left that is not to stand. Of one alone the transaction is
        the savepoint."""
        mark = tx.mark()
        stands = self._attempt(item, tx)
        if not stands and not tx.back(mark) and not alone:
            raise Again
        return stands

    def _within(self, item: Item[Any], tx: Tx) -> bool:
        """`_attempt`, of which nothing is left where it is not to stand."""
        mark, stands = tx.mark(), False
        self._session.savepoint()
        try:
            stands = self._attempt(item, tx)
        finally:
            if stands:
                self._session.keep()
            elif self._session.alive:
                self._session.undo()
                tx.back(mark)
        return stands

    def _attempt(self, item: Item[Any], tx: Tx) -> bool:
        """Run one operation; whether what it wrote is to stand. A wrong one fails alone, its neighbours in the group do
        not. Raises where the database is not well any more, and TooLong."""
        item.error = None
        try:
            item.value = item.operation(tx)
        except TooLong:
            raise
        except self._session.refusals as error:
            item.error = error
            tx.written += 1  # be it a read: a server takes nothing more until what failed is undone
        except self._session.faults as error:
            if not self._session.alive:
                raise
            item.error = _unavailable(error)
            tx.written += 1
        except StopIteration as error:  # which no future takes
            item.error = RuntimeError(f"an operation ended by {error!r}")
        except Exception as error:
            item.error = error
        return item.error is None and not item.dry_run

    def _abandon(self, group: Group, error: Exception) -> None:
        """Nothing of the group was written: each of its writers hears so."""
        try:
            self._session.rollback()
        except self._session.faults:
            pass  # the transaction is gone already; the next BEGIN says whether the database is well
        self._metrics.failed()
        group.stands, group.entries = False, []
        for item in group.items:
            item.error = _unavailable(error)


def _unavailable(error: Exception) -> Unavailable:
    if isinstance(error, Unavailable):
        return error
    if isinstance(error, Unsettled):
        return Unavailable(
            "the database went away amid the commit: whether it was done is not known", internal=str(error)
        )
    full = any(word in str(error) for word in ("full", "No space left"))
    words = "the disk of the store is full" if full else "the store cannot write now"
    return Unavailable(f"{words}; nothing was changed", internal=f"{type(error).__name__}: {error}")


def read_counter(session: ReadSession | Session, name: str, *, missing: int = 0) -> int:
    """A counter through any connection."""
    row: Mapping[int, int] | None = session.execute(COUNTER, {"of_name": name}).fetchone()
    return row[0] if row is not None else missing
