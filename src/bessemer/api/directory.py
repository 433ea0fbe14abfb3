"""Holdings that follow the store, by four watches.

A write through this process waits until the directory has seen it (`reach`), so that whoever made a tenant may use it
at once, and whoever lost something has lost it when the answer comes; another replica's write arrives with the watch,
a moment later, and where none can arrive nothing is decided (`following`). It decides nothing: see `api.access`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

import orjson

from bessemer.api.following import Following
from bessemer.api.holdings import KINDS, Holdings
from bessemer.core.errors import Unavailable
from bessemer.core.ports import Bookmark
from bessemer.core.resource import Change
from bessemer.kinds.tenancy.rights import Place, Rulebook

REACH_SECONDS_MAX = 2.0


class Directory(Holdings):
    """Run it with `run`; read it after `ready`. ``version`` counts what may change a decision."""

    def __init__(self, following: Following, *, book: Rulebook) -> None:
        super().__init__(book)
        self._following = following
        self._revisions = dict.fromkeys(KINDS, 0)
        self._moved = asyncio.Event()
        self._turn = asyncio.Event()
        self._full: set[str] = set()
        self._born: dict[tuple[str, str], int] = {}

    async def run(self) -> None:
        """Follow what it is made of until cancelled."""
        await asyncio.gather(*(self._follow(kind) for kind in KINDS))

    async def ready(self) -> None:
        """Wait for the first whole view. Raises Unavailable where it does not come."""
        await self._until(lambda: len(self._full) == len(KINDS))

    async def reach(self, kind: str, revision: int) -> None:
        """Wait until a write of that kind and revision is seen, but not for ever."""
        if kind in self._revisions:
            await self._until(lambda: self._revisions[kind] >= revision)

    def begins(self, place: Place) -> int:
        """The revision from which on a tenant or a project is the one that is there now: before it, the name was
        somebody else's, perhaps. Of what was there before this process was, the last change counts."""
        return max(self._born.get(("Tenant", place.tenant), 0), self._born.get(("Project", place.project), 0))

    @property
    def turn(self) -> asyncio.Event:
        """Is set when what somebody may, or the plan of a tenant, changes next."""
        return self._turn

    async def _until(self, holds: Callable[[], bool]) -> None:
        try:
            async with asyncio.timeout(REACH_SECONDS_MAX):
                while not holds():
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError as error:
            raise Unavailable("the server has not read its tenants yet") from error

    async def _follow(self, kind: str) -> None:
        async def begin() -> None:
            self._full.discard(kind)
            self.forget(kind)
            self._born = {key: born for key, born in self._born.items() if key[0] != kind}
            self._changed()

        await self._following.follow(kind, hear=partial(self._apply, kind), begin=begin)

    def _apply(self, kind: str, event: Change | Bookmark) -> None:
        if isinstance(event, Bookmark):
            self._full.add(kind)
        else:
            body = None if event.type == "DELETED" else orjson.loads(event.body)
            self._dated(kind, event)
            if self.tell(kind, event.key.name, body=body):
                self._changed()
        if isinstance(event, Bookmark) or kind in self._full:
            self._revisions[kind] = max(self._revisions[kind], event.revision)
        self._moved.set()

    def _dated(self, kind: str, event: Change) -> None:
        if kind not in ("Tenant", "Project"):
            return
        if event.type == "DELETED":
            self._born.pop((kind, event.key.name), None)
        else:
            self._born.setdefault((kind, event.key.name), event.revision)

    def _changed(self) -> None:
        turn, self._turn = self._turn, asyncio.Event()
        turn.set()
