"""Snapshots that are held for lists which may be continued: one for each revision, whichever lists are of it.

A snapshot lasts while a list of it is neither read to its end nor left for `SNAPSHOT_SECONDS`, until history has moved
on by `SNAPSHOT_REVISIONS`, or its place is wanted: then the group that has most of them loses the one that it used
least lately. No list goes on for longer than `LIST_SECONDS`, whichever processes are asked.

Of a file it is a reading transaction in which the pages are read. Of a server's database it is a transaction whose
snapshot each page of its lists takes over, by name and in a connection of its own; a process that is asked for a list
of another's takes it over too, and holds it from then on as well, so that either may go.

It decides nothing about what a list shows.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from bessemer.core.clock import Clock
from bessemer.core.errors import Expired, Unavailable
from bessemer.store.continuing import Token
from bessemer.store.listing import Place
from bessemer.store.metrics import Metrics
from bessemer.store.pool import Pool, View
from bessemer.store.session import ReadSession

SNAPSHOT_SECONDS = 60.0
LIST_SECONDS = 900.0
LISTS_MAX = 256
"""Of one group and one revision, those that are told apart."""
SNAPSHOTS_MAX = 64
SNAPSHOT_REVISIONS = 20_000

_TRIM_SECONDS = 1.0
_SILENT_SECONDS = 30.0
"""A server ends who says nothing for longer than some of these."""


class _Lists:
    """Those of a group that may be continued. Of the ones past `LISTS_MAX` no more is known than for how long one of
    them may be, so what a group holds here is bounded."""

    __slots__ = ("_others", "_until")

    def __init__(self) -> None:
        self._until: dict[str, float] = {}
        """By list, the one last read at the end."""
        self._others = 0.0

    def __bool__(self) -> bool:
        return bool(self._until or self._others)

    def renew(self, reading: str, until: float) -> None:
        """A page of it was read."""
        self._until.pop(reading, None)
        self._until[reading] = until
        if len(self._until) > LISTS_MAX:
            self._others = self._until.pop(next(iter(self._until)))

    def end(self, reading: str) -> None:
        """It was read to its end."""
        self._until.pop(reading, None)

    def lapse(self, now: float) -> None:
        """Forget those that nobody came back for."""
        while self._until and self._until[first := next(iter(self._until))] <= now:
            del self._until[first]
        if self._others <= now:
            self._others = 0.0


@dataclass(slots=True, eq=False)
class Look:
    """A view of one revision, and who needs it."""

    view: View
    name: str = ""
    """By which other connections find it."""
    spoke: float = 0.0
    users: int = 0
    lists: dict[str, _Lists] = field(default_factory=dict)
    """By group."""
    over: bool = False


class Held:
    """``most`` snapshots at once, each of which has a connection of ``pool``."""

    def __init__(self, pool: Pool, *, clock: Clock, metrics: Metrics, most: int = SNAPSHOTS_MAX) -> None:
        self._pool = pool
        self._clock = clock
        self._metrics = metrics
        self._most = most
        self._looks: dict[int, Look] = {}
        """By revision, the one last used at the end."""
        self._due = 0.0

    def __len__(self) -> int:
        return len(self._looks)

    @property
    def due(self) -> bool:
        """Whether it is time to `trim`."""
        return bool(self._looks) and self._clock.monotonic() >= self._due

    @property
    def views(self) -> list[View]:
        """What is held."""
        return [look.view for look in self._looks.values()]

    @asynccontextmanager
    async def look(self, token: Token) -> AsyncIterator[Look]:
        """A look at a token's revision, or at what there is now. Raises Expired where that revision is gone, or the
        list has gone on for too long."""
        if token.revision and self._clock.now() >= token.until:
            raise Expired("that list has gone on for too long")
        held = self._looks.get(token.revision)
        if held is not None and not self._pool.turn.remote:
            look = held
        elif token.revision:
            look = await self._taken_over(token, held)
        else:
            look = Look(await self._pool.open())
        look.users += 1
        try:
            yield look
        finally:
            look.users -= 1
            self._leave(look)

    async def _taken_over(self, token: Token, held: Look | None) -> Look:
        """What a token's snapshot shows, in a connection of its own."""
        if held is None:
            if not token.snapshot:
                raise Expired("nobody holds that snapshot any more")
            look = Look(await self._pool.open(token.snapshot))
        else:
            held.users += 1
            try:
                await self._speak(held)
                look = Look(await self._pool.open(held.name))
            except Expired:
                self._drop(held)
                raise
            finally:
                held.users -= 1
                self._leave(held)
        if look.view.revision != token.revision:  # another's by the same name, after a restart of the server
            self._leave(look)
            raise Expired("that snapshot is of another revision")
        return look

    async def _speak(self, held: Look) -> None:
        """Say something in its transaction, if that has been silent. Raises Expired where it is broken, and Unavailable
        where nobody has looked."""
        before, now = held.spoke, self._clock.monotonic()
        if now - before < _SILENT_SECONDS:
            return
        held.spoke = now  # nobody else speaks meanwhile: one at a time has a connection
        lost: Unavailable | None = None
        looked = False
        try:
            lost = await self._pool.turn.do(lambda: _lost(held.view.session))
            looked = True
        finally:
            if not looked:
                held.spoke = before
        if lost is not None:
            raise Expired("the connection of that snapshot is lost") from lost

    async def keep(self, look: Look, token: Token, *, last: Place, group: str) -> Token:
        """Let a list go on behind ``last``: hold its snapshot, unless one of that revision is held. The token that its
        next page has."""
        revision = look.view.revision
        if revision not in self._looks:
            name = await self._pool.turn.do(look.view.session.export)
            if revision not in self._looks:
                look.name, look.spoke = name, self._clock.monotonic()
                self._looks[revision] = look
        held = self._looks.pop(revision)
        self._looks[revision] = held
        reading = token.reading or secrets.token_hex(6)
        held.lists.setdefault(group, _Lists()).renew(reading, self._clock.monotonic() + SNAPSHOT_SECONDS)
        while len(self._looks) > self._most:
            self._drop(self._surplus())
        self._metrics.snapshots = len(self)
        until = token.until or int(self._clock.now() + LIST_SECONDS)
        return Token(revision, held.name, reading, until, last)

    def ended(self, revision: int, reading: str, *, group: str) -> None:
        """A list was read to its end."""
        held = self._looks.get(revision)
        if held is None:
            return
        if (lists := held.lists.get(group)) is not None:
            lists.end(reading)
            if not lists:
                del held.lists[group]
        self._leave(held)

    async def trim(self, revision: int) -> None:
        """Let go of what nobody came back for, and of what is far behind the last ``revision``: it keeps old rows from
        being cleared away. Of a file they are gone when this returns."""
        now = self._clock.monotonic()
        self._due = now + _TRIM_SECONDS
        for held in list(self._looks.values()):
            if revision - held.view.revision > SNAPSHOT_REVISIONS:
                held.lists = {}
            for lists in held.lists.values():
                lists.lapse(now)
            held.lists = {group: lists for group, lists in held.lists.items() if lists}
            self._leave(held)
            if held.over:  # each is ended before anybody else has a turn, who might have us end here
                await asyncio.sleep(0)

    def _surplus(self) -> Look:
        """Whose place is wanted most: each of its lists is of a group that has many. Of several the one that was used
        least lately."""
        looks = self._looks.values()
        shares = Counter(group for look in looks for group in look.lists)
        return max(looks, key=lambda look: min((shares[group] for group in look.lists), default=0))

    def _drop(self, held: Look) -> None:
        held.lists = {}
        self._leave(held)

    def _leave(self, look: Look) -> None:
        """Have the connection back once nobody needs it."""
        if self._ends(look):
            self._pool.end(look.view)

    def _ends(self, look: Look) -> bool:
        """Whether nobody needs it, which is said once."""
        if look.lists and not look.over:
            return False
        if self._looks.get(look.view.revision) is look:
            del self._looks[look.view.revision]
            self._metrics.snapshots = len(self)
        if look.users or look.over:
            return False
        look.over = True
        return True


def _lost(session: ReadSession) -> Unavailable | None:
    """Have it say something; why its transaction is broken, where that is so."""
    try:
        session.export()
    except Unavailable as error:
        return error
    return None
