"""Reads: one object at once, lists in slices of one snapshot, history for those who fell behind.

Of a file they run in the event loop; where each waits for a network, in threads (`apart`). A get is one statement on a
connection that is open already. A list looks at one revision from its first row to its last, and lets others run
between slices, so that a neighbour never waits for 10,000 rows. A list that is continued holds its snapshot until it
ends, is left for a minute, or history has moved on too far; then it is Expired.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import islice
from typing import Any

from sqlalchemy import bindparam, select

from bessemer.core.clock import Clock
from bessemer.core.errors import Expired, Malformed, NotFound
from bessemer.core.ports import Page, Scope, Stored
from bessemer.core.resource import Change, Key
from bessemer.store.documents import read_labels
from bessemer.store.feed import CHANGE_TYPES, Entry, seen, selects
from bessemer.store.listing import Place, listing
from bessemer.store.metrics import Metrics
from bessemer.store.pool import Pool, View
from bessemer.store.rows import LOAD, Row, place
from bessemer.store.schema import changes, filled, of
from bessemer.store.session import Statement
from bessemer.store.transaction import COUNTER

WINDOW = 500
"""Revisions of history read at once."""

SNAPSHOT_SECONDS = 60.0
SNAPSHOTS_MAX = 64
SNAPSHOT_REVISIONS = 20_000

_HISTORY = select(
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
).order_by(changes.c.revision)
NEWER = _HISTORY.where(changes.c.revision > bindparam("since")).limit(bindparam("most"))
"""Every change after one, of whatever kind: rows for `entry`."""
_CHANGES = _HISTORY.where(
    changes.c.revision > bindparam("since"),
    changes.c.revision <= bindparam("until"),
    of(changes.c.kind),
)
_CHANGES_ON_HOST = _CHANGES.where(of(changes.c.host), filled(changes.c.host))


class Reader:
    """Reads through the connections of ``pool``; ``flat`` names the kinds that belong to no project; ``held`` bounds
    the snapshots of lists. What cannot be read raises Unavailable."""

    def __init__(
        self,
        pool: Pool,
        *,
        clock: Clock,
        metrics: Metrics,
        flat: frozenset[str] = frozenset(),
        held: int = SNAPSHOTS_MAX,
    ) -> None:
        self.pool = pool
        self._clock = clock
        self._metrics = metrics
        self._turn = pool.turn
        self.remote = pool.turn.remote
        """Whether one object is had by `fetch`, and not at once by `get`."""
        self._listing = listing(flat)
        self._held_max = held
        self._held: dict[str, View] = {}

    def get(self, key: Key) -> Stored:
        """One object, at once. Raises NotFound."""
        row = self.pool.session.execute(LOAD, place(key)).fetchone()
        if row is None:
            raise NotFound(f"{key} does not exist")
        return Row.of(row).stored()

    async def fetch(self, key: Key) -> Stored:
        """`get`, wherever the database is. Raises NotFound."""
        for row in await self.ask(LOAD, **place(key)):
            return Row.of(row).stored()
        raise NotFound(f"{key} does not exist")

    async def ask(self, statement: Statement, **values: Any) -> list[Any]:
        """Every row of a short read."""
        return await self.pool.ask(statement, values)

    async def revision(self) -> int:
        """The last committed one."""
        ((value,),) = await self.ask(COUNTER, of_name="revision")
        return int(value)

    async def rows(self, statement: Statement, **values: Any) -> list[Any]:
        """Every row of a longer read, of one revision, in slices."""
        async with self.view() as view:
            return await view.rows(statement, **values)

    @asynccontextmanager
    async def view(self) -> AsyncIterator[View]:
        """A look at one revision for as long as the block lasts, whoever else reads meanwhile."""
        async with self._turn.room:
            view = await self.pool.open()
            try:
                yield view
            finally:
                self.pool.end(view)

    # --- lists --------------------------------------------------------------------------------------------------

    async def page(self, scope: Scope, *, limit: int = 0, after: str = "") -> Page:
        """See `ports.Objects.list`."""
        await self.trim()
        token, place_after = _read_token(after)
        async with self._turn.room:
            view = self._resume(token) if token else await self.pool.open()
            try:
                items, more = await self._read(view, scope, limit=limit, after=place_after)
                remaining = await self._remaining(view, scope, last=items[-1].key) if more else 0
            except BaseException:
                self.pool.end(view)
                raise
            if not more:
                self.pool.end(view)
                return Page(items, view.revision)
        token = token or secrets.token_hex(8)
        view.until = self._clock.monotonic() + SNAPSHOT_SECONDS
        self._held[token] = view
        self._metrics.snapshots = len(self._held)
        return Page(items, view.revision, _write_token(token, items[-1].key), remaining)

    async def _read(self, view: View, scope: Scope, *, limit: int, after: Place) -> tuple[list[Stored], bool]:
        items: list[Stored] = []
        reads = await self._turn.do(lambda: [*self._listing.reads(view.session, scope, after=after)])
        for statement, values in reads:
            async for rows in view.slices(statement, values):
                fitting = (row for row in rows if _fits(scope, row))
                room = limit - len(items) if limit else None
                items += [Row.of(row).stored() for row in islice(fitting, room)]
                if len(items) == limit and next(fitting, None) is not None:
                    return items, True
        return items, False

    async def _remaining(self, view: View, scope: Scope, *, last: Key) -> int:
        """How many follow; 0 where a label selector would make the count dear."""
        if scope.labels or scope.names is not None:
            return 0
        counts = self._listing.counts(scope, (last.namespace, last.name))
        return await self._turn.do(lambda: sum(view.session.execute(*count).fetchone()[0] for count in counts))

    # --- snapshots ----------------------------------------------------------------------------------------------

    def _resume(self, token: str) -> View:
        view = self._held.pop(token, None)
        if view is None:
            raise Expired("the list that is continued is not held any more: list again from the start")
        self._metrics.snapshots = len(self._held)
        return view

    async def trim(self) -> None:
        """Let go of snapshots that nobody came back for, or that keep the log from being folded in."""
        now, revision = self._clock.monotonic(), await self.revision() if self._held else 0
        surplus = len(self._held) - self._held_max
        for index, (token, held) in enumerate(list(self._held.items())):
            if index < surplus or held.until <= now or revision - held.revision > SNAPSHOT_REVISIONS:
                self.pool.end(self._held.pop(token))
        self._metrics.snapshots = len(self._held)

    def close(self) -> None:
        """Close every connection."""
        self.pool.close(view.session for view in self._held.values())

    # --- history ------------------------------------------------------------------------------------------------

    async def history(self, scope: Scope, since: int, *, until: int) -> list[Change]:
        """What the scope saw after ``since``, up to ``until``. Raises Expired where that is gone."""
        values: dict[str, Any] = {"since": since, "until": until, "of_kind": scope.kind}
        if scope.host:
            rows = await self.ask(_CHANGES_ON_HOST, **values, of_host=scope.host)
        else:
            rows = await self.ask(_CHANGES, **values)
        ((floor,),) = await self.ask(COUNTER, of_name="floor")  # after the read: what was dropped meanwhile is noticed
        if since < floor:
            raise Expired("history does not reach back so far: list again")
        found = (seen(scope, entry(row)) for row in rows)
        return [change for change in found if change is not None]


def entry(row: Any) -> Entry:
    """From a row of `NEWER`."""
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
