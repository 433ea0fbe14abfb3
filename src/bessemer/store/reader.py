"""Reads in the event loop: one object at once, lists in slices of one snapshot, history for those who fell behind.

A get is one statement on a connection that is always open. A list looks at one revision from its first row to its last,
and lets others run between slices, so that a neighbour never waits for 10,000 rows. A list that is continued holds its
snapshot until it ends, is left for a minute, or history has moved on too far; then it is Expired.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, select

from bessemer.core.clock import Clock
from bessemer.core.errors import Expired, Malformed, NotFound
from bessemer.core.ports import Page, Scope, Stored
from bessemer.core.resource import Change, Key
from bessemer.store.documents import read_labels
from bessemer.store.feed import CHANGE_TYPES, Entry, seen, selects
from bessemer.store.listing import Listing, Place
from bessemer.store.metrics import Metrics
from bessemer.store.rows import LOAD, Row, place
from bessemer.store.schema import changes, filled, of
from bessemer.store.sqlite import Session, Statement
from bessemer.store.transaction import read_counter

SLICE = 200
WINDOW = 500
"""Revisions of history read at once."""

SNAPSHOT_SECONDS = 60.0
SNAPSHOTS_MAX = 64
IDLE_MAX = 4
"""Connections kept for the next list. Each holds pages and files; opening one takes a millisecond."""

SNAPSHOT_REVISIONS = 20_000

_CHANGES = (
    select(
        changes.c.revision,
        changes.c.type,
        changes.c.kind,
        changes.c.namespace,
        changes.c.name,
        changes.c.uid,
        changes.c.host,
        changes.c.body,
        changes.c.labels_before,
        changes.c.labels,
    )
    .where(
        changes.c.revision > bindparam("since"),
        changes.c.revision <= bindparam("until"),
        of(changes.c.kind),
    )
    .order_by(changes.c.revision)
)
_CHANGES_ON_HOST = _CHANGES.where(of(changes.c.host), filled(changes.c.host))


@dataclass(slots=True)
class _Snapshot:
    """A reading transaction that stays open, and what it looks at."""

    session: Session
    revision: int
    until: float = 0.0


class Reader:
    """Owns the reading connections. ``connect`` makes another, and a lean one of many; ``flat`` names the kinds that
    belong to no project. What cannot be read raises Unavailable."""

    def __init__(
        self, connect: Callable[[bool], Session], *, clock: Clock, metrics: Metrics, flat: frozenset[str] = frozenset()
    ) -> None:
        self._connect = connect
        self._clock = clock
        self._metrics = metrics
        self.session = connect(False)
        """The connection for single statements."""
        self._listing = Listing(flat)
        self._idle: list[Session] = []
        self._held: dict[str, _Snapshot] = {}

    def get(self, key: Key) -> Stored:
        """One object. Raises NotFound."""
        row = self.session.execute(LOAD, place(key)).fetchone()
        if row is None:
            raise NotFound(f"{key} does not exist")
        return Row.of(row).stored()

    def revision(self) -> int:
        """The last committed one."""
        return read_counter(self.session, "revision")

    def floor(self) -> int:
        """History holds every change after this one."""
        return read_counter(self.session, "floor")

    async def rows(self, statement: Statement, **values: Any) -> list[Any]:
        """Every row of a longer read, of one revision, in slices."""
        with self.view() as session:
            return await sliced(session, statement, values=values)

    @contextmanager
    def view(self) -> Iterator[Session]:
        """A connection that looks at one revision for as long as the block lasts, whoever else reads meanwhile."""
        snapshot = self._open()
        try:
            yield snapshot.session
        finally:
            self._close(snapshot)

    # --- lists --------------------------------------------------------------------------------------------------

    async def page(self, scope: Scope, *, limit: int = 0, after: str = "") -> Page:
        """See `ports.Objects.list`."""
        self.trim()
        token, place_after = _read_token(after)
        snapshot = self._resume(token) if token else self._open()
        try:
            items, more = await self._read(snapshot.session, scope, limit=limit, after=place_after)
            remaining = _remaining(self._listing, snapshot.session, scope=scope, last=items[-1].key) if more else 0
        except BaseException:
            self._close(snapshot)
            raise
        if not more:
            self._close(snapshot)
            return Page(items, snapshot.revision)
        token = token or secrets.token_hex(8)
        snapshot.until = self._clock.monotonic() + SNAPSHOT_SECONDS
        self._held[token] = snapshot
        self._metrics.snapshots = len(self._held)
        return Page(items, snapshot.revision, _write_token(token, items[-1].key), remaining)

    async def _read(self, session: Session, scope: Scope, *, limit: int, after: Place) -> tuple[list[Stored], bool]:
        items: list[Stored] = []
        async for rows in self._slices(session, scope, after=after):
            for row in rows:
                if limit and len(items) == limit:
                    return items, True
                items.append(Row.of(row).stored())
        return items, False

    async def _slices(self, session: Session, scope: Scope, *, after: Place) -> AsyncIterator[list[Any]]:
        """The rows of the scope, some at a time, with a turn for others between."""
        for statement, values in self._listing.reads(session, scope, after=after):
            cursor = session.execute(statement, values)
            while rows := cursor.fetchmany(SLICE):
                yield [row for row in rows if _fits(scope, row)]
                if len(rows) == SLICE:
                    await asyncio.sleep(0)

    # --- snapshots ----------------------------------------------------------------------------------------------

    def _open(self) -> _Snapshot:
        session = self._idle.pop() if self._idle else self._connect(True)
        try:
            session.look()
            return _Snapshot(session, read_counter(session, "revision"))
        except BaseException:
            session.close()
            raise

    def _resume(self, token: str) -> _Snapshot:
        snapshot = self._held.pop(token, None)
        if snapshot is None:
            raise Expired("the list that is continued is not held any more: list again from the start")
        self._metrics.snapshots = len(self._held)
        return snapshot

    def _close(self, snapshot: _Snapshot) -> None:
        snapshot.session.rollback()
        if len(self._idle) < IDLE_MAX:
            self._idle.append(snapshot.session)
        else:
            snapshot.session.close()

    def trim(self) -> None:
        """Let go of snapshots that nobody came back for, or that keep the log from being folded in."""
        now, revision = self._clock.monotonic(), self.revision() if self._held else 0
        surplus = len(self._held) - SNAPSHOTS_MAX
        for index, (token, held) in enumerate(list(self._held.items())):
            if index < surplus or held.until <= now or revision - held.revision > SNAPSHOT_REVISIONS:
                self._close(self._held.pop(token))
        self._metrics.snapshots = len(self._held)

    def close(self) -> None:
        """Close every connection."""
        for snapshot in self._held.values():
            snapshot.session.close()
        for session in (*self._idle, self.session):
            session.close()

    # --- history ------------------------------------------------------------------------------------------------

    def history(self, scope: Scope, since: int, *, until: int) -> list[Change]:
        """What the scope saw after ``since``, up to ``until``. Raises Expired where that is gone."""
        values: dict[str, Any] = {"since": since, "until": until, "of_kind": scope.kind}
        if scope.host:
            rows = self.session.execute(_CHANGES_ON_HOST, {**values, "of_host": scope.host}).fetchall()
        else:
            rows = self.session.execute(_CHANGES, values).fetchall()
        if since < self.floor():  # after the read: what was dropped meanwhile is noticed
            raise Expired("history does not reach back so far: list again")
        found = (seen(scope, _entry(row)) for row in rows)
        return [change for change in found if change is not None]


def _remaining(listing: Listing, session: Session, *, scope: Scope, last: Key) -> int:
    """How many follow; 0 where a label selector would make the count dear."""
    if scope.labels or scope.names is not None:
        return 0
    counts = listing.counts(scope, (last.namespace, last.name))
    return sum(session.execute(statement, values).fetchone()[0] for statement, values in counts)


async def sliced(session: Session, statement: Statement, *, values: Mapping[str, Any]) -> list[Any]:
    """Every row of a longer read, with a turn for others between `SLICE` of them."""
    found: list[Any] = []
    cursor = session.execute(statement, values)
    while rows := cursor.fetchmany(SLICE):
        found.extend(rows)
        await asyncio.sleep(0)
    return found


def _entry(row: Any) -> Entry:
    kind = row[1]
    before = read_labels(row[8]) if kind else None
    change = Change(row[0], CHANGE_TYPES[kind], Key(row[2], row[3], row[4]), row[5], row[6], row[7], before)
    return Entry(change, row[9])


def _fits(scope: Scope, row: Any) -> bool:
    """What the statement did not check."""
    if scope.names is not None and row[2] not in scope.names:
        return False
    return not scope.labels or selects(scope.labels, read_labels(row[7]))


def _write_token(token: str, last: Key) -> str:
    return base64.urlsafe_b64encode(f"{token}/{last.namespace}/{last.name}".encode()).decode()


def _read_token(after: str) -> tuple[str, tuple[str, str]]:
    """The snapshot and the place in it. Raises Malformed."""
    if not after:
        return "", ("", "")
    try:
        token, namespace, name = base64.urlsafe_b64decode(after.encode()).decode().split("/")
    except (ValueError, binascii.Error) as error:
        raise Malformed("the continue token is none of ours") from error
    return token, (namespace, name)
