"""`ports.Objects` in SQL: reads from the reader, writes as operations of the one writer, watches from the feed.

Here stand the operations (who may, what becomes of the body, what goes with it); `rows` writes them with their history.
Invariants: a write that changes nothing keeps the revision; what has finalizers is only marked by a deletion; what an
object owned follows it in the same transaction; a status write of a Claim moves its ledger in the same transaction; all
that comes out is of its kind's newest version, whichever it was stored or written in.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from math import inf
from typing import Any

from bessemer.core.errors import AlreadyExists, Cause, Conflict, Expired, Invalid
from bessemer.core.notices import Happening
from bessemer.core.ports import NOBODY, Asker, Bookmark, Page, Part, Policy, Scope, Stored, Writer
from bessemer.core.resource import Change, Key, tenant_of
from bessemer.store import (
    audit,
    bounds,
    crowd,
    difference,
    documents,
    events,
    foresight,
    ledger,
    money,
    quota,
    rules,
    waiting,
    walls,
)
from bessemer.store.cascade import Cascades, advance
from bessemer.store.collect import begin_deletion, finish_deletion, relieve
from bessemer.store.documents import Document
from bessemer.store.feed import Feed, Watcher
from bessemer.store.forward import Forwarding
from bessemer.store.kinds import CLAIM, EVENT, HOST, LEASE, PROJECT, StoreKind
from bessemer.store.reader import WINDOW, Reader
from bessemer.store.rows import disown, exists, find, load, save
from bessemer.store.sealed import reseal
from bessemer.store.transaction import Tx
from bessemer.store.vault import Vault
from bessemer.store.writer import Committer


class ObjectTable:
    """Implements `ports.Objects`."""

    def __init__(
        self,
        committer: Committer,
        reader: Reader,
        *,
        feed: Feed,
        kinds: Mapping[str, StoreKind],
        vault: Vault,
        cascades: Cascades,
    ) -> None:
        self._committer = committer
        self._cascades = cascades
        self._vault = vault
        self._reader = reader
        self._feed = feed
        self._kinds = kinds
        self._forward = Forwarding(kinds)

    async def get(self, key: Key) -> Stored:
        """Raises NotFound."""
        return self._forward.stored(await self._reader.fetch(key) if self._reader.remote else self._reader.get(key))

    async def list(self, scope: Scope, *, limit: int = 0, after: str = "", asker: Asker = NOBODY) -> Page:
        """In order of namespace and name, all of one revision. Raises Expired, Malformed."""
        page = await self._reader.page(scope, limit=limit, after=after, asker=asker)
        return self._forward.page(page, scope.kind)

    async def create(
        self,
        body: Mapping[str, Any],
        writer: Writer,
        *,
        dry_run: bool = False,
        sealed: Mapping[str, bytes] | None = None,
    ) -> Stored:
        """Raises AlreadyExists, Forbidden, QuotaExceeded, Invalid, and Conflict where an owner is gone."""
        said = self._forward.document(documents.settled(body))
        key = documents.key_of(said, self._kinds)
        rules.may_write_main(key, writer)
        await self._ready(sealed)

        def write(tx: Tx) -> Stored:
            return self._sealed(tx, _create(tx, said, key=key, kinds=self._kinds, writer=writer), values=sealed)

        foresees = sealed is None and self._committer.foresees
        looks = foresight.of_create(said, key, facts=self._kinds[key.kind]) if foresees else None
        return await self._committer.submit(write, dry_run=dry_run, looks=looks)

    async def replace(
        self,
        body: Mapping[str, Any],
        writer: Writer,
        *,
        part: Part = "main",
        dry_run: bool = False,
        sealed: Mapping[str, bytes] | None = None,
        tells: Sequence[Happening] = (),
    ) -> Stored:
        """Replace one part; a status may tell of something. Raises NotFound, Conflict, Forbidden, Invalid."""
        said = self._forward.document(documents.settled(body))
        key = documents.key_of(said, self._kinds)
        forward, facts = self._forward, self._kinds[key.kind]
        foresees = sealed is None and self._committer.foresees
        looks = foresight.of_replace(said, key, part=part, facts=facts) if foresees else None
        if part == "main":
            rules.may_write_main(key, writer)
            await self._ready(sealed)

            def write(tx: Tx) -> Stored:
                stored = _replace_main(tx, said, key=key, kinds=self._kinds, writer=writer, forward=forward)
                return self._sealed(tx, stored, values=sealed)

            return await self._cascades.submit(write, dry_run=dry_run, looks=looks)

        def follow(tx: Tx) -> Stored:
            before = load(tx, key).document() if facts.counts else None
            stored = replace_part(tx, said, key=key, part=part, writer=writer, forward=forward)
            if before is not None:
                quota.follow_part(tx, key, facts=facts, old=before, new=documents.decode(stored.body))
            events.note(tx, stored, happenings=tells)
            return stored

        return await self._committer.submit(follow, dry_run=dry_run, looks=None if tells else looks)

    async def _ready(self, sealed: Mapping[str, bytes] | None) -> None:
        if sealed:
            await self._vault.ready()

    def _sealed(self, tx: Tx, stored: Stored, *, values: Mapping[str, bytes] | None) -> Stored:
        """The object, with the sealed values that it was written with."""
        if values is not None and exists(tx, stored.uid):
            reseal(tx, self._vault, uid=stored.uid, values=values)
        return stored

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
        """Delete, or set deletionTimestamp while finalizers stand. Raises NotFound, Conflict, Forbidden."""
        rules.may_write_main(key, writer)
        said, kinds = {"uid": uid, "resourceVersion": revision}, self._kinds
        facts = kinds.get(key.kind)
        looks = foresight.of_delete(key, facts=facts) if facts is not None and self._committer.foresees else None

        def act(tx: Tx) -> Stored:
            row = load(tx, key)
            documents.check(said, row.uid, revision=row.revision, key=key)
            left = begin_deletion(tx, row, writer=writer, kinds=kinds, policy=policy)
            if waiting.waits(left) and advance(tx, left.uid, kinds=kinds):
                tx.unseen += 1
            return left.stored()

        return self._forward.stored(await self._cascades.submit(act, dry_run=dry_run, looks=looks))

    async def watch(
        self,
        scope: Scope,
        *,
        since: int | None = None,
        level: bool = False,
        lagged: Callable[[], None] | None = None,
    ) -> AsyncIterator[Change | Bookmark]:
        """Every change after ``since``, in order, for ever; see `ports.Objects.watch`. Raises Expired."""
        watcher = self._feed.join(scope)
        try:
            if since is None:
                page = self._forward.page(await self._reader.page(scope), scope.kind)
                for item in page.items:
                    yield Change(item.revision, "ADDED", item.key, item.uid, item.host, item.body)
                position = page.revision
                yield Bookmark(position)
            else:
                position = since
                if since > self._feed.revision and since > await self._reader.revision():
                    raise Expired("that revision has not been given yet: list again")
                watcher.lagging = since < self._feed.revision
            async for event in self._follow(watcher, position, level=level, lagged=lagged):
                yield event if isinstance(event, Bookmark) else self._forward.change(event)
        finally:
            self._feed.leave(watcher)

    async def _follow(
        self, watcher: Watcher, position: int, *, level: bool, lagged: Callable[[], None] | None
    ) -> AsyncIterator[Change | Bookmark]:
        """Queue and history by turns. Nothing happens in the loop between a look at the feed and the next await."""
        watcher.due |= level
        while True:
            if watcher.ended:
                raise Expired("the database has gone back to an earlier state: list again")
            if watcher.lagging:
                watcher.lagging = False  # from here on the queue fills again, from the feed's revision on
                until = self._feed.revision
                if lagged is not None:
                    lagged()
                async for change in self._history(watcher.scope, position, until=until):
                    watcher.due |= level
                    yield change
                position = max(position, until)
            while watcher.queue:
                change = watcher.queue.popleft()
                if change.revision > position:
                    position = change.revision
                    watcher.due |= level
                    yield change
            if watcher.lagging or watcher.queue:
                continue
            if watcher.due:
                watcher.due = False
                if level or position < self._feed.revision:
                    position = max(position, self._feed.revision)
                    yield Bookmark(position)
                    continue
            await watcher.wait()

    async def _history(self, scope: Scope, since: int, *, until: int) -> AsyncIterator[Change]:
        for start in range(since, until, WINDOW):
            for change in await self._reader.history(scope, start, until=min(start + WINDOW, until)):
                yield change
            await asyncio.sleep(0)


Kinds = Mapping[str, StoreKind]


def _create(tx: Tx, said: Document, *, key: Key, kinds: Kinds, writer: Writer) -> Stored:
    facts = kinds[key.kind]
    if find(tx, key) is not None:
        raise AlreadyExists(f"{key} exists already")
    document = documents.fresh(said, key, facts=facts, now=tx.now)
    walls.require_open(tx, key)
    require_owners(tx, document)
    if facts.meter:
        money.require(tx, key.namespace, tenant=tenant_of(key.namespace))
        if not facts.counts:
            quota.count(tx, key, meter=facts.meter, by=1)
    count = crowd.make_room(tx, key, most=facts.most) if facts.most else 0
    walls.follow(tx, document)
    quota.follow(tx, document)
    bounds.follow(tx, document)
    if key.kind == PROJECT:
        events.forget(tx, key.name)
    row = save(tx, document, before=None)
    if count:
        crowd.filled(tx, key, count=count)
    if key.kind != EVENT:
        audit.append(tx, writer, verb="create", key=key, uid=row.uid, change=difference.made(document))
    return row.stored()


def require_owners(tx: Tx, document: Document) -> None:
    """An owner that is gone would never take this object with it, one that stands twice would be counted twice, and
    what owns itself would never go. Raises Conflict, Invalid."""
    owners = documents.owners_of(document)
    if len({*owners, document["metadata"]["uid"]}) <= len(owners):
        raise Invalid("owners", [Cause("metadata.ownerReferences", "each owner stands once, and none is the object")])
    for owner in owners:
        if not exists(tx, owner):
            raise Conflict(f"the owner of {document['kind']} {document['metadata']['name']} does not exist any more")


def _replace_main(tx: Tx, said: Document, *, key: Key, kinds: Kinds, writer: Writer, forward: Forwarding) -> Stored:
    row = load(tx, key)
    old = forward.document(row.document())
    documents.check(said["metadata"], row.uid, revision=row.revision, key=key)
    facts = kinds[key.kind]
    keep = facts.finalizer if writer.kind == "user" else ""
    document = documents.merged_main(old, said, parts=facts.parts, keep_finalizer=keep)
    if document == old:
        return forward.stored(row.stored())
    owned = documents.owners_of(document) != documents.owners_of(old)
    unblocked = set(waiting.blocked_by(old)) - {*waiting.blocked_by(document)}
    if documents.deleting(old) and not documents.finalizers(document):
        if owned:
            disown(tx, row.uid)
        going = row._replace(body=documents.encode(document, most=inf))
        gone = finish_deletion(tx, going, writer=writer, kinds=kinds)
        relieve(tx, unblocked, writer=writer, kinds=kinds)
        return gone.stored()
    if owned:
        require_owners(tx, document)
    walls.follow(tx, document)
    quota.follow(tx, document)
    bounds.follow(tx, document)
    saved = save(tx, document, before=row)
    relieve(tx, unblocked, writer=writer, kinds=kinds)
    if not _routine(old, document):
        audit.append(tx, writer, verb="update", key=key, uid=row.uid, change=difference.between(old, document))
    return saved.stored()


def _routine(old: Document, new: Document) -> bool:
    """Whether it is what a program writes every few seconds: a Lease that its holder renews, an Event that happened
    again. Those would fill the trail, and say nothing."""
    if new["kind"] == LEASE:
        return bool(old["spec"].get("holderIdentity") == new["spec"].get("holderIdentity"))
    return bool(new["kind"] == EVENT)


def replace_part(tx: Tx, said: Document, *, key: Key, part: Part, writer: Writer, forward: Forwarding) -> Stored:
    """Within a transaction, of what nobody else holds. Raises NotFound, Conflict, Forbidden, Invalid."""
    row = load(tx, key)
    rules.may_write_part(key, row.host, part=part, writer=writer)
    old = forward.document(row.document())
    documents.check(said["metadata"], row.uid, revision=row.revision, key=key)
    if part == "report":
        document = documents.merged_field(old, said, field="report")
    else:
        document = documents.merged_status(old, said, keep=("report",) if key.kind == HOST else ())
    if document == old:
        return forward.stored(row.stored())
    if key.kind == CLAIM:
        ledger.follow(tx, row.uid, phase=_phase(document))
    walls.follow(tx, document)
    saved = save(tx, document, before=row)
    if writer.kind in ("user", "system"):
        change = difference.of_fields({"status": old.get("status", {})}, {"status": document.get("status", {})})
        audit.append(tx, writer, verb=f"update {part}", key=key, uid=row.uid, change=change)
    return saved.stored()


def _phase(document: Document) -> str:
    phase = document["status"].get("phase", "Pending")
    if not isinstance(phase, str):
        raise Invalid("the status has no phase that can be read")
    return phase
