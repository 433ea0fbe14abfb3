"""Whether somebody may stand otherwise than before: told to what was opened on a credential's strength and is open yet.

It follows the objects that credentials hang on, the Host of an agent, the User, the Sessions and the programs'
credentials of a person, and the providers that vouch for people, and says no more than whom a change concerns; what
they are worth now is asked of the authenticator. Invariant: whoever takes a `turn`, and then asks, misses no change.
What ends by the clock alone (a session's time) is not told here.
"""

from __future__ import annotations

import asyncio
from weakref import WeakValueDictionary

import orjson

from bessemer.api.context import Identity
from bessemer.api.following import Following
from bessemer.core.ports import Bookmark, Objects, Scope
from bessemer.core.resource import Change

KINDS = ("Host", "User", "Session", "ApplicationCredential", "IdentityProvider", "SignInPolicy")


class Standing:
    """Run it with `run`, from a revision of `present` on."""

    def __init__(self, objects: Objects, following: Following) -> None:
        self._objects = objects
        self._following = following
        self._turns: WeakValueDictionary[tuple[str, str], asyncio.Event] = WeakValueDictionary()

    def turn(self, who: Identity) -> asyncio.Event:
        """Is set when what ``who`` hangs on changes next."""
        key = ("Host" if who.kind == "agent" else "User", who.name)
        return self._turns.setdefault(key, asyncio.Event())

    async def present(self) -> int:
        """The revision of now: whoever goes on from it misses nothing."""
        # No object has that name, so nothing is read, and no snapshot held for the rest of it.
        return (await self._objects.list(Scope(kind=KINDS[0], namespace="", name=""))).revision

    async def run(self, since: int) -> None:
        """Follow until cancelled, whatever the store answers."""
        async with asyncio.TaskGroup() as group:
            for kind in KINDS:
                group.create_task(self._following.follow(kind, hear=self._hear, begin=self._anew, since=since))

    async def _anew(self) -> int:
        """Where history was lost, everybody may stand otherwise."""
        since = await self.present()
        self._tell_all()
        return since

    def _hear(self, event: Change | Bookmark) -> None:
        if isinstance(event, Bookmark) or (event.type == "ADDED" and event.key.kind != "SignInPolicy"):
            return
        if event.key.kind in ("IdentityProvider", "SignInPolicy"):
            self._tell_all()  # whoever it vouches for, or keeps out
        else:
            self._tell(_concerned(event))

    def _tell_all(self) -> None:
        for key in list(self._turns):
            self._tell(key)

    def _tell(self, key: tuple[str, str]) -> None:
        turn = self._turns.pop(key, None)
        if turn is not None:
            turn.set()


def _concerned(change: Change) -> tuple[str, str]:
    if change.key.kind in ("Session", "ApplicationCredential"):
        return "User", orjson.loads(change.body)["spec"].get("user", "")  # nobody's, of one that no person made
    return change.key.kind, change.key.name
