"""Whether people come in with what is our own, passwords and sign-in links: the SignInPolicy, in memory, by one watch.

Where they are switched off, sign-ins by them, sessions that they began and credentials of who has no other way in are
worth nothing from that moment. Who switches them off has come in another way as an administrator, that very time. The
certificate of the state directory opens always; while it is the last way in, what it does is signed ``break-glass``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import orjson

from bessemer.api.following import Following
from bessemer.api.limit import Limiter, network
from bessemer.core.clock import Clock
from bessemer.core.errors import Forbidden, TooMany
from bessemer.core.ports import Audit, Bookmark, Objects, Scope, Writer
from bessemer.core.resource import Change, Key
from bessemer.kinds.tenancy.signinpolicy import NAME

if TYPE_CHECKING:
    from bessemer.api.access import Target
    from bessemer.api.state import Call

KIND = "SignInPolicy"
BREAK_GLASS = "break-glass"
NOTE_SECONDS = 600.0
_OFF = "passwords and sign-in links of our own are switched off here: sign in by your provider"
_PROVE = (
    "local users are switched off by an administrator who came in another way just now: sign in by an IdentityProvider "
    "as an administrator of the platform, and ask again; else nobody might come in any more"
)


class OwnDoor:
    """Run it with `run`."""

    def __init__(self, objects: Objects, audit: Audit, *, clock: Clock, following: Following) -> None:
        self._objects = objects
        self._audit = audit
        self._following = following
        self._full = asyncio.Event()
        self._noted = Limiter(clock, burst=1, seconds=NOTE_SECONDS)
        self._open = True

    async def opens(self) -> bool:
        """Whether it does, once that is known."""
        await self._full.wait()
        return self._open

    async def require(self) -> None:
        """Raises Forbidden where it does not, whoever asks."""
        if not await self.opens():
            raise Forbidden(_OFF)

    async def broken(self, writer: Writer) -> None:
        """Tell the trail that the certificate was the way in: every ten minutes from each address."""
        try:
            self._noted.take(network(writer.source))
        except TooMany:
            return
        await self._audit.note(writer, BREAK_GLASS, key=Key(KIND, "", NAME))

    async def run(self) -> None:
        """Follow until cancelled. What was known last holds while nothing newer can be read."""
        await self._following.follow(KIND, hear=self._hear, begin=self._read)

    async def _read(self) -> int:
        page = await self._objects.list(Scope(kind=KIND))
        self._open = all(_opens(orjson.loads(stored.body)) for stored in page.items)
        self._full.set()
        return page.revision

    def _hear(self, event: Change | Bookmark) -> None:
        if isinstance(event, Change):
            self._open = event.type == "DELETED" or _opens(orjson.loads(event.body))


def _opens(policy: Mapping[str, Any]) -> bool:
    return bool(policy["spec"].get("localUsers", True))


def judge(call: Call, target: Target, *, body: Mapping[str, Any], old: Mapping[str, Any] | None) -> None:
    """Who switches local users off has another way in, and used it. Raises Forbidden."""
    if target.resource.stored != KIND or _opens(body) or (old is not None and not _opens(old)):
        return
    if not call.who.provider or not call.state.access.administers(call.who):
        raise Forbidden(_PROVE)
