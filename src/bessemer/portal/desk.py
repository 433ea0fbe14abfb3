"""A desk: one signed-in session. Its client carries the session's bearer, its mirrors hold what that bearer may see.

Invariants: one watch per session and kind, whatever the number of tabs; nothing is read or written with any other
right than the session's; a bearer that the api refuses ends the desk at once. Desks live in memory alone.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from bessemer.client import Client, Me
from bessemer.core.clock import Clock
from bessemer.core.errors import BessemerError, NotFound, Unauthenticated, Unavailable
from bessemer.core.resource import Key, tenant_of
from bessemer.portal import ledger
from bessemer.portal.facts import Fact
from bessemer.portal.ledger import Spent
from bessemer.portal.live import Tab
from bessemer.portal.mirror import Mirror
from bessemer.portal.playground import Keyring

F = TypeVar("F", bound=Fact)

READY_SECONDS_MAX = 15.0
IDLE_SECONDS_MAX = 120.0
DESKS_MAX = 500
TABS_MAX = 64
STREAMS_MAX = 16
"""Of a session: a browser needs one for all of its tabs, or one for each where it has no shared workers."""
SPENT_MAX = 16
"""Endpoints whose usage a session keeps added up."""


class Desk:
    """One session. ``me`` is who the api last said that we are; ``changes`` counts what arrived. ``ended`` says that
    nothing more comes from this desk, ``refused`` that it is the session itself that ended. ``let_go`` are the tokens
    of tabs that were followed when they became too many. ``reading`` is held by whoever reads a ledger from its
    beginning: one at a time for each session."""

    def __init__(self, client: Client, *, clock: Clock, keys: Keyring) -> None:
        self.client = client
        self.clock = clock
        self.keys = keys
        self.reading = asyncio.Lock()
        self.me = Me("", False, {}, ())
        self.tabs: dict[str, Tab] = {}
        self.let_go: deque[str] = deque(maxlen=4 * TABS_MAX)
        self.changes = 0
        self.streams = 0
        self.used = clock.monotonic()
        self.ended = False
        self.refused = False
        self._checked = float("-inf")
        self._followed: dict[str, Mirror] = {}
        self._spent: dict[tuple[str, str], Spent] = {}
        self._bells: set[asyncio.Event] = set()

    async def check(self, *, max_age: float = 0.0) -> Me:
        """Ask the api who we are, unless it said so within ``max_age`` seconds. Raises Unauthenticated, Unavailable."""
        if self.ended:
            raise Unauthenticated("the session has ended: sign in again")
        if self.clock.monotonic() - self._checked > max_age:
            try:
                self.me = await self.client.account.whoami()
            except Unauthenticated:
                self.refused = True
                await self.close()
                raise
            self._checked = self.clock.monotonic()
        return self.me

    def role(self, project: str) -> str:
        """``admin``, ``tenant-admin``, ``member``, ``reader``, or "" for somebody else's project."""
        return "admin" if self.me.admin else self.me.tenants.get(tenant_of(project), "")

    def writes(self, project: str) -> bool:
        """Whether the role may change things there. The api decides; this only hides what it would refuse."""
        return self.role(project) in {"admin", "tenant-admin", "member"}

    async def see(self, *kinds: type[Fact]) -> None:
        """Begin to follow these kinds, and return when each list is complete. Raises Unavailable after 15 s."""
        self.used = self.clock.monotonic()
        for kind in kinds:
            if kind.KIND not in self._followed:
                mirror = Mirror(self.client, kind.KIND, clock=self.clock, changed=self._ring)
                self._followed[kind.KIND] = mirror
                mirror.start()
        waiting = [self._followed[kind.KIND].ready.wait() for kind in kinds]
        try:
            await asyncio.wait_for(asyncio.gather(*waiting), READY_SECONDS_MAX)
        except TimeoutError as error:
            raise Unavailable("the api did not answer in time") from error

    def all(self, kind: type[F]) -> Sequence[F]:
        """Every object of a kind that is followed, in order of project and name."""
        followed = self._followed.get(kind.KIND)
        facts = followed.facts if followed else {}
        return [facts[key] for key in sorted(facts) if isinstance(facts[key], kind)]  # type: ignore[misc]

    def one(self, kind: type[F], name: str, *, project: str = "") -> F:
        """Raises NotFound."""
        found = self.find(kind, name, project=project)
        if found is None:
            raise NotFound(f"there is no {kind.KIND} {name}" + (f" in {project}" if project else ""))
        return found

    def find(self, kind: type[F], name: str, *, project: str = "") -> F | None:
        followed = self._followed.get(kind.KIND)
        fact = followed.facts.get(Key(kind.KIND, project, name)) if followed else None
        return fact if isinstance(fact, kind) else None

    def rings(self, event: asyncio.Event) -> None:
        """Set the event whenever something arrives, until `silent`."""
        self._bells.add(event)

    def silent(self, event: asyncio.Event) -> None:
        self._bells.discard(event)

    def keep(self, tab: Tab) -> None:
        """Remember what a tab was shown, so that its stream can tell what is new. Of too many the oldest is forgotten:
        one that nobody follows, or else one that somebody does, whose stream then says so."""
        while len(self.tabs) >= TABS_MAX:
            idle = (token for token, old in self.tabs.items() if old.owner is None)
            old = self.tabs.pop(next(idle, next(iter(self.tabs))))
            old.forgotten = True
            if old.owner is not None:
                self.let_go.append(old.token)
                self._ring()
        self.tabs[tab.token] = tab

    def spent(self, project: str, uid: str) -> Spent:
        """What went through an endpoint, shared by all tabs of the session that show it."""
        found = self._spent.pop((project, uid), None)
        if found is None:
            read = partial(ledger.rows, self.client, project, workload=uid)
            found = Spent(lambda since, until: read(since=since, until=until), clock=self.clock)
        while len(self._spent) >= SPENT_MAX:
            self._spent.pop(next(iter(self._spent))).close()
        self._spent[project, uid] = found
        return found

    async def close(self) -> None:
        """End every watch and stream, and take back the keys that were made for this session."""
        if self.ended:
            return
        self.ended = True
        for spent in self._spent.values():
            spent.close()
        await asyncio.gather(*(mirror.stop() for mirror in self._followed.values()))
        self._followed.clear()
        self._ring()
        await self.keys.revoke(self.client)
        await self.client.close()

    def _ring(self) -> None:
        self.changes += 1
        for event in self._bells:
            event.set()


@dataclass(slots=True)
class Desks:
    """The desks of this process, by the bearer's digest. ``open`` makes a client for a bearer."""

    open: Callable[[str], Client]
    keys: Callable[[], Keyring]
    clock: Clock
    _by_digest: dict[str, Desk] = field(default_factory=dict)

    async def of(self, bearer: str) -> Desk:
        """The session's desk, checked just now. Raises Unauthenticated, Unavailable."""
        digest = _digest(bearer)
        desk = self._by_digest.get(digest)
        if desk is None or desk.ended:
            desk = await self._opened(bearer, digest)
        await desk.check(max_age=1.0)
        desk.used = self.clock.monotonic()
        return desk

    async def _opened(self, bearer: str, digest: str) -> Desk:
        """A new desk, or the one that another request of the session opened meanwhile."""
        fresh = Desk(self.open(bearer), clock=self.clock, keys=self.keys())
        try:
            await fresh.check()
        except BessemerError:
            await fresh.client.close()
            raise
        await self._make_room()
        other = self._by_digest.get(digest)
        if other is None or other.ended:
            self._by_digest[digest] = fresh
            return fresh
        await fresh.close()
        return other

    async def end(self, bearer: str) -> str:
        """Sign out: end the session at the api, whatever becomes of the rest. Answers where a browser ends that of an
        issuer, or ""."""
        desk = self._by_digest.pop(_digest(bearer), None) or Desk(self.open(bearer), clock=self.clock, keys=self.keys())
        await desk.keys.revoke(desk.client)
        desk.refused = True
        url = ""
        try:
            url = await desk.client.account.logout()
        except (Unauthenticated, Unavailable):
            pass  # it has ended already, or will by itself; the cookie goes either way
        await desk.close()
        return url

    async def sweep(self) -> None:
        """Close the desks that ended or that nobody has looked at for a while. The session itself goes on."""
        now = self.clock.monotonic()
        for digest, desk in list(self._by_digest.items()):
            idle = desk.streams == 0 and now - desk.used > IDLE_SECONDS_MAX
            if desk.ended or idle:
                # While another was closed this one may have gone, or another come in its place.
                if self._by_digest.get(digest) is desk:
                    del self._by_digest[digest]
                await desk.close()

    async def close(self) -> None:
        """Close every desk; the sessions go on and find a new desk after a restart."""
        desks = list(self._by_digest.values())
        self._by_digest.clear()
        for desk in desks:
            await desk.close()

    async def _make_room(self) -> None:
        while len(self._by_digest) >= DESKS_MAX:
            oldest = min(self._by_digest, key=lambda digest: self._by_digest[digest].used)
            await self._by_digest.pop(oldest).close()


def _digest(bearer: str) -> str:
    return hashlib.sha256(bearer.encode()).hexdigest()
