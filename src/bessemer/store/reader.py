"""Reads: one object at once, lists in slices of one snapshot, history for those who fell behind.

Of a file they run in the event loop; where each waits for a network, in threads (`apart`). A get is one statement on a
connection that is open already, or goes with others (`gathering`). A list looks at one revision from its first row to
its last, and lets others run between slices, so that a neighbour never waits for 10,000 rows. So does one that is
continued, whichever process is asked, for as long as its snapshot is held (`held`); then it is Expired, and may go on
at what there is now.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, select

from bessemer.core.errors import Expired, NotFound
from bessemer.core.ports import NOBODY, Asker, Page, Scope, Stored
from bessemer.core.resource import Change, Key
from bessemer.store.continuing import Seal, Token
from bessemer.store.documents import read_labels
from bessemer.store.feed import CHANGE_TYPES, Entry, seen, selects
from bessemer.store.held import Held, Look
from bessemer.store.listing import Place, listing
from bessemer.store.pool import Pool, View
from bessemer.store.rows import LOAD, Row, place
from bessemer.store.schema import changes, filled, of
from bessemer.store.session import Statement
from bessemer.store.transaction import COUNTER

if TYPE_CHECKING:
    from bessemer.store.gathering import Gathering
    from bessemer.store.recent import Recent

WINDOW = 500
"""Revisions of history read at once."""

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
    """Reads through the connections of ``pool``; ``held`` has the snapshots of lists, and ``seal`` is for their tokens;
    ``flat`` names the kinds that belong to no project; single objects behind a network are had by ``gathering``, and of
    a file some are known by ``recent``. What cannot be read raises Unavailable."""

    def __init__(
        self,
        pool: Pool,
        *,
        held: Held,
        seal: Seal,
        flat: frozenset[str] = frozenset(),
        gathering: Gathering | None = None,
        recent: Recent | None = None,
    ) -> None:
        self.pool = pool
        self._recent = recent
        self._gathering = gathering
        self._turn = pool.turn
        self.remote = pool.turn.remote
        """Whether one object is had by `fetch`, and not at once by `get`."""
        self._listing = listing(flat)
        self._held = held
        self._seal = seal

    def get(self, key: Key) -> Stored:
        """One object, at once. Raises NotFound."""
        recent = self._recent
        if recent is not None and (known := recent.get(key)) is not None:
            return known
        row = self.pool.session.execute(LOAD, place(key)).fetchone()
        if row is None:
            raise NotFound(f"{key} does not exist")
        stored = Row.of(row).stored()
        if recent is not None:
            recent.keep(stored)
        return stored

    async def fetch(self, key: Key) -> Stored:
        """`get`, wherever the database is. Raises NotFound."""
        if self._gathering is None:
            return self.get(key)
        if key.kind in self._gathering.files:
            row = next(iter(await self.pool.ask(LOAD, place(key))), None)
        else:
            row = await self._gathering.row(key)
        if row is None:
            raise NotFound(f"{key} does not exist")
        return Row.of(row).stored()

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

    async def page(self, scope: Scope, *, limit: int = 0, after: str = "", asker: Asker = NOBODY) -> Page:
        """See `ports.Objects.list`."""
        token = self._seal.read(after, scope.kind, asker=asker)
        if self._held.due:
            await self.trim()
        try:
            if 0 < token.revision < asker.since:
                raise Expired("that is from before what is here now")
            async with self._turn.room, self._held.look(token) as look:
                return await self._page(look, scope, limit=limit, token=token, asker=asker)
        except Expired as error:
            raise self._seal.expired(token, scope.kind, asker=asker) from error

    async def _page(self, look: Look, scope: Scope, *, limit: int, token: Token, asker: Asker) -> Page:
        view = look.view
        items, more = await self._read(view, scope, limit=limit, after=token.last)
        if not more:
            self._held.ended(view.revision, token.reading, group=asker.group)
            return Page(items, view.revision)
        last = items[-1].key
        remaining = await self._remaining(view, scope, last=last)
        following = await self._held.keep(look, token, last=(last.namespace, last.name), group=asker.group)
        return Page(items, view.revision, self._seal.write(following, scope.kind, asker=asker), remaining)

    async def _read(self, view: View, scope: Scope, *, limit: int, after: Place) -> tuple[list[Stored], bool]:
        items: list[Stored] = []
        reads = await self._turn.do(lambda: [*self._listing.reads(view.session, scope, after=after)])
        for statement, values in reads:
            async with aclosing(view.slices(statement, values)) as slices:
                if await _fill(items, slices, scope=scope, limit=limit):
                    return items, True
        return items, False

    async def _remaining(self, view: View, scope: Scope, *, last: Key) -> int:
        """How many follow; 0 where a label selector would make the count dear."""
        if scope.labels or scope.names is not None:
            return 0
        counts = self._listing.counts(scope, (last.namespace, last.name))
        return await self._turn.do(lambda: sum(view.session.execute(*count).fetchone()[0] for count in counts))

    async def trim(self) -> None:
        """Let go of snapshots that nobody came back for, or that keep the log from being folded in."""
        await self._held.trim(await self.revision() if len(self._held) else 0)

    def close(self) -> None:
        """Close every connection."""
        if self._recent is not None:
            self._recent.move(None)
        if self._gathering is not None:
            self._gathering.close()
        self.pool.close(view.session for view in self._held.views)

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


async def _fill(items: list[Stored], slices: AsyncIterator[list[Any]], *, scope: Scope, limit: int) -> bool:
    """Add what fits; whether more do than there is room for."""
    async for rows in slices:
        fitting = (row for row in rows if _fits(scope, row))
        room = limit - len(items) if limit else None
        items += [Row.of(row).stored() for row in islice(fitting, room)]
        if len(items) == limit and next(fitting, None) is not None:
            return True
    return False


def _fits(scope: Scope, row: Any) -> bool:
    """What the statement did not check."""
    if scope.names is not None and row[2] not in scope.names:
        return False
    return not scope.labels or selects(scope.labels, read_labels(row[7]))
