"""One group of operations through one transaction, and a revision that moves with the commit.

A refused operation is undone alone and leaves no gap in the revisions; a database that is not well fails the group, and
each of its writers hears so. Nearly all operations stand, are refused before they wrote anything, or have had all that
they wrote put off: so none gets a savepoint until one would have to be undone, and then the group is run again with a
savepoint for each (ADR 24). An operation may thus run several times, and changes nothing but through its transaction.

`Runner` neither waits nor chooses what belongs to a group: see `writer`, and `flight` for a group that is begun and
ended elsewhere. What an operation sees is `transaction`'s.
"""

from __future__ import annotations

import asyncio
import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from bessemer.core.clock import Clock
from bessemer.core.errors import BessemerError, Unavailable
from bessemer.store.feed import Entry
from bessemer.store.known import Known, Look
from bessemer.store.metrics import Metrics
from bessemer.store.session import Batch, Exchange, Remote, Session, Undone, Unsettled
from bessemer.store.transaction import Mark, TooLong, Tx

T = TypeVar("T")

GROUP_SECONDS = 0.005
"""An operation more than this after its group's first goes into the next: the loop has others to serve."""

CAREFUL_SECONDS = 1.0
"""After a group that ran twice, so that whoever is refused all the time costs the others a savepoint and no more."""

OPERATION_SECONDS = 0.01
"""What an operation may take in the event loop; where it takes longer, it is undone and runs apart."""


OF_ROWS: tuple[type[Exception], ...] = (BessemerError, ValueError, TypeError, OverflowError, struct.error)
"""What a row that no database takes raises on this side of the wire."""


class Again(Exception):
    """What one operation of a group wrote is not to stand, and cannot be told from what the others did."""


Operation = Callable[[Tx], T]


@dataclass(slots=True)
class Item(Generic[T]):
    """One operation, and who waits for what it answers or raises. ``apart`` and ``looks``: see
    `writer.Committer.submit`."""

    operation: Operation[T]
    future: asyncio.Future[T]
    dry_run: bool
    apart: bool
    looks: Sequence[Look] | None = None
    value: Any = None
    error: Exception | None = None

    @property
    def foreseen(self) -> bool:
        """Whether it may go through without asking the database. (A dry run has it judge what would be written.)"""
        return self.looks is not None and not self.apart and not self.dry_run


@dataclass(slots=True)
class Group:
    """Operations on their way through one transaction. ``stands``: there is something to commit, ``rest`` and the
    commit itself. ``careful``: each has a savepoint. ``closing``: how the commit came out, where that was sent already.
    """

    items: list[Item[Any]]
    started: float = 0.0
    ran: bool = False
    stands: bool = False
    entries: list[Entry] = field(default_factory=list)
    revision: int = 0
    rest: Sequence[Batch] = ()
    careful: bool = False
    closing: Exchange | None = None
    known: Known | None = None
    """What its transaction knew."""


def looks_of(items: Sequence[Item[Any]]) -> list[Look]:
    """What the operations said that they will ask, each once."""
    return list({look.name: look for item in items for look in item.looks or ()}.values())


class Runner:
    """Runs groups on the writing connection, of which there is one, and which one thread has at a time."""

    def __init__(self, session: Session, clock: Clock, *, metrics: Metrics) -> None:
        self._session = session
        self._remote = session if isinstance(session, Remote) else None
        self._clock = clock
        self._metrics = metrics
        self._careful_until = -math.inf
        self._known: Known | None = None
        """What is true of the database still, unless another connection has written since ``_stamp``."""
        self._stamp: int | None = None

    def run(self, group: Group, *, apart: bool) -> list[Item[Any]]:
        """Run the group's operations in a transaction, which stays open where something stands. Unless it runs apart
        it has little time: answers those for which there was none. Where another has the database, none is run."""
        items = group.items
        group.careful = self.careful or any(item.dry_run for item in items)
        looks = looks_of(items) if self._remote is not None else ()
        try:
            while True:
                group.started = self._clock.monotonic()
                if not self._session.begin(wait=apart, looks=looks):
                    group.ran, group.items = False, items
                    return []
                tx = Tx(self._session, self._clock, careful=group.careful, looks=looks, known=self._kept())
                group.known = tx.known
                try:
                    self._run(group, tx, items=items, apart=apart)
                    break
                except Again:
                    self._again(group)
        except Exception as error:  # a database that is not well, or a defect
            group.ran, group.items = True, items
            self._abandon(group, error)
        return items[len(group.items) :]

    def _kept(self) -> Known | None:
        """What the last transaction knew, for one that has begun: until it is committed, nobody knows anything."""
        known, self._known = self._known, None
        stamp, self._stamp = self._stamp, self._session.stamp
        return known if stamp == self._stamp is not None else None

    def through(self, group: Group, looks: Sequence[Look]) -> list[Item[Any]]:
        """Run operations that were foreseen in a transaction that was begun with ``looks``, asking the database
        nothing. Answers those that left the group: behind one that does ask, none counts as foreseen any more.
        Raises whatever goes wrong, and then the group is as it was."""
        items, group.started = group.items, self._clock.monotonic()
        tx = Tx(self._session, self._clock, careful=False, mute=True, looks=looks)
        try:
            self._run(group, tx, items=items, apart=False)
        except BaseException:
            group.items = items
            raise
        return items[len(group.items) :]

    @property
    def careful(self) -> bool:
        """Whether each operation has a savepoint now."""
        return self._clock.monotonic() < self._careful_until

    def _again(self, group: Group) -> None:
        self._session.rollback()
        group.careful, self._careful_until = True, self._clock.monotonic() + CAREFUL_SECONDS

    def _run(self, group: Group, tx: Tx, *, items: list[Item[Any]], apart: bool) -> None:
        """Raises Again where it would have to be careful."""
        group.ran, group.items, group.stands = True, [], False
        group.entries, group.revision = [], 0
        try:
            self._each(group, tx, items=items, apart=apart)
            if group.stands:
                group.rest = tx.rest()
                if self._remote is None:
                    self._session.execute_each(group.rest)
                    group.rest = ()
                group.entries, group.revision = tx.entries, tx.revision
        except TooLong:
            group.items, group.stands = [], False
        except self._session.refusals + OF_ROWS as error:
            if group.careful:
                raise
            raise Again from error  # of a row that had been put off: its operation shall hear so, alone
        if not group.stands and not tx.mute:
            self._session.rollback()
            self.ended(group)

    def commit(self, group: Group) -> None:
        """Make what stands durable; where that fails, nothing of it was written. A row that was put off and is none
        that the database takes makes the group run again, and so does, once, the loss of its connection while it was
        in the air: there the loop may have kept the database waiting for too long."""
        refused = self._session.refusals + (OF_ROWS if group.closing is None else ())
        try:
            if group.closing is not None and self._remote is not None:
                self._remote.closed(group.closing)
            else:
                self._session.commit(group.rest)
        except refused as error:
            if group.careful or isinstance(error, Unavailable):
                self._abandon(group, error)
                return
            self._rerun(group, careful=True)
        except Undone as error:
            if group.closing is None:
                self._abandon(group, error)
            else:
                self._rerun(group, careful=False)
        except self._session.faults as error:
            self._abandon(group, error)
        except Exception as error:  # a defect, which says nothing of what was done
            self._abandon(group, Unsettled(repr(error)))
        else:
            self._known = group.known if self._remote is None else None
            if self._known is not None:
                self._known.go_on()
            self.ended(group)

    def _rerun(self, group: Group, *, careful: bool) -> None:
        group.closing = None
        try:
            if careful:
                self._again(group)
        except self._session.faults as error:
            self._abandon(group, error)
            return
        self.run(group, apart=True)
        if group.stands:
            self.commit(group)

    def _each(self, group: Group, tx: Tx, *, items: list[Item[Any]], apart: bool) -> None:
        """One after the other while there is time; the others leave the group, one that was too long as the first.
        Raises TooLong where it takes all others along."""
        careful = group.careful
        for item in items:
            now = self._clock.monotonic()
            if group.items and not apart and now > group.started + GROUP_SECONDS:
                break
            tx.until = math.inf if apart else now + OPERATION_SECONDS
            mark = tx.mark()
            try:
                within = self._within if careful else self._without
                group.stands |= within(item, tx, mark=mark, alone=len(items) == 1)
            except TooLong:
                _leave(items[len(group.items) :], asked=tx.mute)
                if not careful and not tx.back(mark):
                    raise
                break
            group.items.append(item)

    def ended(self, group: Group) -> None:
        """Count it."""
        took = self._clock.monotonic() - group.started
        self._metrics.ended(len(group.items), len(group.entries), seconds=took)

    def _without(self, item: Item[Any], tx: Tx, *, mark: Mark, alone: bool) -> bool:
        """`_attempt`; raises Again where something of it is left that is not to stand. Of one alone the transaction is
        the savepoint."""
        stands = self._attempt(item, tx)
        if not stands and not tx.back(mark) and not alone:
            raise Again
        return stands

    def _within(self, item: Item[Any], tx: Tx, *, mark: Mark, alone: bool) -> bool:
        """`_attempt`, of which nothing is left where it is not to stand."""
        stands = False
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


def _leave(items: list[Item[Any]], *, asked: bool) -> None:
    """The first has no time here, or asked what was not foreseen: then what is behind it may do so, too."""
    items[0].apart = not asked
    for item in items if asked else ():
        item.looks = None


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
