"""The Claims of this host: what the api wants of it, kept on disk, and `core.ports.Objects` over that for the loop.

Three speak to it. The follower brings what the api says (`accept`, `absent`, `complete`), the loop reads and writes
statuses through `IntentObjects`, the reporter empties the `Outbox`. Invariants:

* A Claim is seen by the loop only once its intent would survive the end of the machine's power. Where the disk refuses,
  the api hears it as the Claim's reason, and the Claim waits in memory until there is space (`retry`).
* An end needs no durability: a Claim that is being deleted is taken away even where nothing can be written.
* A status is stored before it is said. ``Gone`` is kept until the api has dropped the Claim.
* A Claim that the api dropped without having heard ``Gone`` was released while we were away: what is left of it here is
  removed, and nobody is told.

It is not a cache of the api: nobody else's object ever gets here, and nothing is written back but statuses.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal

import orjson
import structlog

from bessemer.agent.intentfile import Intent, IntentFiles
from bessemer.agent.outbox import Outbox
from bessemer.core.clock import Clock, rfc3339
from bessemer.core.errors import Conflict, DriverError, Expired, Forbidden, NotFound
from bessemer.core.ports import Bookmark, Page, Part, Policy, Scope, Stored, Writer
from bessemer.core.resource import Change, Condition, Key, set_condition

GONE = "Gone"
News = tuple[Literal["ADDED", "MODIFIED", "DELETED"], Intent, int]
"""What became of an intent, and the revision at which."""

log = structlog.get_logger(__name__)


class Intents:
    """What is wanted of this host, by Claim uid."""

    def __init__(self, files: IntentFiles, *, outbox: Outbox, clock: Clock) -> None:
        self._files = files
        self._outbox = outbox
        self._clock = clock
        self.by_uid: dict[str, Intent] = {}
        """What the loop may work on. Read it; what writes it are the methods here."""
        self._waiting: dict[str, Mapping[str, Any]] = {}
        self._writing = asyncio.Lock()
        self.revision = 1
        self.revisions: dict[str, int] = {}
        self.watchers: set[asyncio.Queue[News]] = set()
        self.refused = asyncio.Event()
        """Set while a Claim waits for the disk."""

    async def load(self) -> None:
        """Read what an earlier process kept. Every status is said once more: whether it was heard is not known."""
        for intent in await self._files.load():
            self._keep(intent)
            if intent.status and not intent.released:
                self._outbox.put(intent.uid, intent.body())

    async def accept(self, body: Mapping[str, Any]) -> None:
        """The api has this Claim, so. Never raises for a disk that refuses: see `retry`."""
        async with self._writing:
            await self._accept(body)

    async def absent(self, uid: str) -> None:
        """The api has this Claim no longer."""
        async with self._writing:
            self._waiting.pop(uid, None)
            self._outbox.drop(uid)
            intent = self.by_uid.get(uid)
            if intent is None or intent.phase == GONE:
                await self._drop(uid)
            elif not intent.released:
                log.warning("claim was released while it stood here", object_uid=uid)
                await self._write(intent.ended(rfc3339(self._clock.now())), must=False)
                self._tell(uid, "MODIFIED")

    async def complete(self, bodies: Iterable[Mapping[str, Any]]) -> None:
        """The api has these Claims of this host and no other."""
        listed = {str(body["metadata"]["uid"]): body for body in bodies}
        for uid in self.known() - listed.keys():
            await self.absent(uid)
        for body in listed.values():
            await self.accept(body)

    async def retry(self) -> bool:
        """Try once more to keep what the disk refused; True when nothing waits any more."""
        async with self._writing:
            for body in list(self._waiting.values()):
                await self._accept(body)
            return not self._waiting

    async def say(self, intent: Intent, *, at: int) -> Intent:
        """Store a status, then say it. Raises Conflict where the intent is not the one of revision ``at`` any more."""
        async with self._writing:
            if self.revisions.get(intent.uid) != at:
                raise Conflict(f"{intent.key} changed")
            await self._write(intent, must=False)
            if not intent.released:
                self._outbox.put(intent.uid, intent.body())
            elif intent.phase == GONE:
                await self._drop(intent.uid)
            return intent

    def known(self) -> frozenset[str]:
        """Every uid that may have effects on this host."""
        return frozenset(self.by_uid) | frozenset(self._waiting)

    def named(self) -> Mapping[Key, Intent]:
        """The Claims by name. One that took a released Claim's name is not seen until that one is gone."""
        return {i.key: i for i in sorted(self.by_uid.values(), key=lambda i: i.released)}

    async def _accept(self, body: Mapping[str, Any]) -> None:
        claim = {name: value for name, value in body.items() if name != "status"}
        uid = str(claim["metadata"]["uid"])
        old = self.by_uid.get(uid)
        new = Intent(uid=uid, claim=claim, status=old.status if old else body.get("status") or {})
        if old is None or old.released or old.wanted != new.wanted:
            try:
                await self._write(new, must=not new.deleting)
            except DriverError as error:
                self._refuse(new, body, error=error)
                return
            self._tell(uid, "MODIFIED" if old else "ADDED")
        elif old.status and (body.get("status") or {}).get("phase") != old.phase and not self._outbox.waits(uid):
            # A word that was held up on its way may come after a newer one, and stand in its place.
            self._outbox.put(uid, old.body())
        self._waiting.pop(uid, None)
        if not self._waiting:
            self.refused.clear()

    def _refuse(self, intent: Intent, body: Mapping[str, Any], *, error: DriverError) -> None:
        """The intent is not durable, so it is not begun; an older intent of the Claim goes on as it was."""
        if intent.uid not in self._waiting:
            log.error("intent not kept", object_uid=intent.uid, reason=error.reason, internal=error.internal)
            status = _unkept(intent, error, now=rfc3339(self._clock.now()))
            self._outbox.put(intent.uid, replace(intent, status=status).body())
        self._waiting[intent.uid] = body
        self.refused.set()

    async def _write(self, intent: Intent, *, must: bool) -> None:
        """Keep it; in memory at least where it need not survive (a status is observed again, an end repeated)."""
        try:
            await self._files.write(intent)
        except DriverError as error:
            if must:
                raise
            log.warning("kept in memory alone", object_uid=intent.uid, reason=error.reason, internal=error.internal)
        self._keep(intent)

    async def _drop(self, uid: str) -> None:
        try:
            await self._files.remove(uid)
        except DriverError as error:
            log.warning("intent file left", object_uid=uid, reason=error.reason, internal=error.internal)
        if uid not in self.by_uid:
            return
        key = self.by_uid[uid].key
        self._tell(uid, "DELETED")
        del self.by_uid[uid], self.revisions[uid]
        heir = self.named().get(key)
        if heir is not None:
            self._keep(heir)
            self._tell(heir.uid, "ADDED")

    def _keep(self, intent: Intent) -> None:
        self.revision += 1
        self.by_uid[intent.uid] = intent
        self.revisions[intent.uid] = self.revision

    def _tell(self, uid: str, what: Literal["ADDED", "MODIFIED", "DELETED"]) -> None:
        """Wake the loop. Its own status writes are no news to it."""
        for queue in self.watchers:
            queue.put_nowait((what, self.by_uid[uid], self.revisions[uid]))


class IntentObjects:
    """`core.ports.Objects` of an agent's loop: kind Claim, this host's, whose status alone may be written."""

    def __init__(self, intents: Intents, host: str) -> None:
        self._intents = intents
        self._host = host

    async def get(self, key: Key) -> Stored:
        intent = self._intents.named().get(key)
        if intent is None:
            raise NotFound(f"{key} is not on this host")
        return self._stored(intent)

    async def list(self, scope: Scope, *, limit: int = 0, after: str = "") -> Page:
        """Everything at once, whatever the limit: a host has few Claims."""
        named = sorted(self._intents.named().items())
        return Page([self._stored(intent) for key, intent in named if _within(scope, key)], self._intents.revision)

    async def watch(self, scope: Scope, *, since: int | None = None) -> AsyncIterator[Change | Bookmark]:
        if since is not None and since < self._intents.revision:
            raise Expired("an agent keeps no history")
        queue: asyncio.Queue[News] = asyncio.Queue()
        self._intents.watchers.add(queue)
        try:
            page = await self.list(scope)
            for stored in page.items if since is None else ():
                yield _change("ADDED", stored)
            yield Bookmark(page.revision)
            while True:
                what, intent, revision = await queue.get()
                if _within(scope, intent.key):
                    yield _change(what, self._stored(intent, revision))
        finally:
            self._intents.watchers.discard(queue)

    async def create(self, body: Mapping[str, Any], writer: Writer, *, dry_run: bool = False) -> Stored:
        raise Forbidden("an agent makes no objects")

    async def delete(
        self,
        key: Key,
        writer: Writer,
        *,
        uid: str = "",
        revision: str = "",
        dry_run: bool = False,
        policy: Policy | None = None,
    ) -> Stored:
        raise Forbidden("an agent deletes no objects")

    async def replace(
        self, body: Mapping[str, Any], writer: Writer, *, part: Part = "main", dry_run: bool = False
    ) -> Stored:
        if part != "status" or writer.kind != "agent":
            raise Forbidden("an agent writes the status of its claims")
        metadata = body["metadata"]
        old = await self.get(Key("Claim", metadata.get("namespace", ""), metadata["name"]))
        if metadata.get("uid", old.uid) != old.uid:
            raise Conflict(f"{old.key} is another one now")
        at = int(metadata.get("resourceVersion") or old.revision)
        intent = self._intents.by_uid.get(old.uid)
        if intent is None or dry_run or body["status"] == intent.status:
            return old
        said = await self._intents.say(replace(intent, status=body["status"]), at=at)
        return self._stored(said, self._intents.revisions.get(old.uid, old.revision))

    def _stored(self, intent: Intent, revision: int | None = None) -> Stored:
        """Finalizers are the control side's: an agent's word on an end is the phase Gone."""
        at = self._intents.revisions[intent.uid] if revision is None else revision
        metadata = {**intent.claim["metadata"], "resourceVersion": str(at), "finalizers": []}
        body = orjson.dumps({**intent.claim, "metadata": metadata, "status": dict(intent.status)})
        return Stored(intent.key, intent.uid, at, int(metadata.get("generation", 0)), self._host, body)


def _unkept(intent: Intent, error: DriverError, *, now: str) -> Mapping[str, Any]:
    """The status of a Claim whose intent the disk refuses."""
    old = [Condition.model_validate(item) for item in intent.status.get("conditions", ())]
    told = set_condition(old, "Ready", False, reason=error.reason, message=error.message, now=now)
    said = {"phase": intent.phase, "reason": error.reason, "message": error.message}
    return {**intent.status, **said, "conditions": [condition.dump() for condition in told]}


def _within(scope: Scope, key: Key) -> bool:
    return scope.kind == key.kind and scope.namespace in (None, key.namespace) and scope.name in (None, key.name)


def _change(what: Literal["ADDED", "MODIFIED", "DELETED"], stored: Stored) -> Change:
    return Change(stored.revision, what, stored.key, stored.uid, stored.host, stored.body)
