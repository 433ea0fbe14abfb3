"""The open transaction, as an operation sees it: `Tx`.

What it writes may be put off and what it looks at be known beforehand, without an operation noticing: whatever asks the
database about a table with rows put off has them written first, and what is known is what the database would answer.
It knows no table but the counter. Who runs operations is `runner`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import bindparam, select, update

from bessemer.core.clock import Clock
from bessemer.store.feed import Entry
from bessemer.store.known import Known, Later, Look, Rows, touch
from bessemer.store.schema import counters, of
from bessemer.store.session import Batch, ReadSession, Session, Statement

COUNTER = select(counters.c.value).where(of(counters.c.name))
SET_COUNTER = update(counters).values(value=bindparam("value")).where(of(counters.c.name))
_STEP = update(counters).values(value=counters.c.value + 1).where(of(counters.c.name)).returning(counters.c.value)

Mark = tuple[int, int, tuple[int, str] | None, int, int, int]


class TooLong(Exception):
    """An operation ran out of the time that it has in the event loop, or asks there what is not known. No operation
    catches it."""


class Tx:
    """One transaction of `runner`, which goes through several operations. ``careful``: each of its writes is done where
    it is said. ``mute``: the database is not to be asked. ``looks`` are what the session was begun with, and ``known``
    what is known already."""

    def __init__(
        self,
        session: Session,
        clock: Clock,
        *,
        careful: bool,
        mute: bool = False,
        looks: Sequence[Look] = (),
        known: Known | None = None,
    ) -> None:
        self._session = session
        self._clock = clock
        self.careful = careful
        self.mute = mute
        self.known = known or Known()
        self._later = Later()
        self._settled = 0
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
        self.unseen = 0
        """How often it was noted that something waits for its dependents, which are seen to afterwards (`cascade`)."""
        for look, rows in zip(looks, session.found, strict=False) if looks else ():
            if rows is None:
                continue
            if look.learn is None:
                self.known.set(look.statement, look.values, rows=rows)
            else:
                look.learn(self.known, rows)

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
        """Write now; answers how many rows it met. What need not know that says `add`."""
        met: int = self._ask(statement, values).rowcount
        return met

    def add(self, statement: Statement, **values: Any) -> None:
        """Write, at the latest before the table is asked about, or the transaction ends. A group's go in together,
        which costs a call for each table, and a remote database one answer for all."""
        self.known.forget(statement, values)
        self.write(statement, values)

    def write(self, statement: Statement, values: Mapping[str, Any]) -> None:
        """`add`, of which it is known already what it leaves."""
        if self.careful:
            self.written += 1
            self._session.execute(statement, values)
        else:
            self._later.add(statement, values)

    def look(self, statement: Statement, **values: Any) -> Rows:
        """Every row, as `all` has them, or as they are known to be: what an operation may say beforehand (`Look`)."""
        rows = self.known.get(statement, values)
        if rows is None:
            rows = self.all(statement, **values)
            self.known.set(statement, values, rows=rows)
        return rows

    def settle(self) -> None:
        """Write what `add` was given."""
        batches, self._settled = self._later.batches(), self._settled + len(self._later.writes)
        self._later.cut(0)
        try:
            self._session.execute_each(batches)
        except BaseException:
            self.written += 1  # whose row it was is not known
            raise

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
        elif self._session.counter is not None:
            self.revision = self._session.counter + 1
        else:
            self.revision = self._counted = self.one(_STEP, of_name="revision")[0]
        return self.revision

    def mark(self) -> Mark:
        """Where it stands, for `back`."""
        later = self._settled + len(self._later.writes)
        return (self.revision, len(self.entries), self.trail, later, self.written, self.known.mark())

    def back(self, mark: Mark) -> bool:
        """Forget what was noted since. Whether that is all: else something was written, too."""
        self.revision, entries, self.trail, later, written, known = mark
        left = later - self._settled
        del self.entries[entries:]
        self._later.cut(max(left, 0))
        self.known.back(known)
        return self.written == written and left >= 0

    def rest(self) -> Sequence[Batch]:
        """It ends: what is to be written with the commit, the counter among it where revisions were taken."""
        self.until = math.inf
        if self.revision > self._counted:
            counted = {"of_name": "revision", "value": self.revision}
            self.known.forget(SET_COUNTER, counted)
            self._later.add(SET_COUNTER, counted)
        return self._later.batches()

    def _ask(self, statement: Statement, values: Mapping[str, Any]) -> Any:
        if self.mute or self._clock.monotonic() > self.until:
            raise TooLong
        if self._later.met(statement, values):
            self.settle()
        if touch(statement).writes:
            self.known.forget(statement, values)
            self.written += 1
        return self._session.execute(statement, values)


def put(tx: Tx, statement: Statement, *, values: Mapping[str, Any], look: Look, rows: Rows) -> None:
    """`Tx.add` a write of one row, after which ``look``, which finds that row by its key, would find these."""
    tx.known.replace(statement, values, look=look, rows=rows)
    tx.write(statement, values)


def read_counter(session: ReadSession | Session, name: str, *, missing: int = 0) -> int:
    """A counter through any connection."""
    row: Mapping[int, int] | None = session.execute(COUNTER, {"of_name": name}).fetchone()
    return row[0] if row is not None else missing
