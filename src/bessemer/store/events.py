"""`ports.Events`: what happened to an object, in words, as core/v1 Events that kubectl shows.

Equal (object, type, reason, message) raise a count; an object keeps its newest 50; all go after a day. Events live
in the table of objects, so that they are listed and watched like anything else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import structlog
from sqlalchemy import bindparam, func, literal_column, select

from bessemer.core.clock import rfc3339
from bessemer.core.errors import BessemerError
from bessemer.core.notices import Happening
from bessemer.core.ports import Stored, Writer
from bessemer.core.resource import API_VERSION, Key
from bessemer.store.documents import Document, fresh
from bessemer.store.kinds import EVENT, StoreKind
from bessemer.store.rows import ROWS, Row, find, own, remove, save
from bessemer.store.schema import dependents, is_kind, objects, of
from bessemer.store.transaction import Tx
from bessemer.store.writer import Committer

if TYPE_CHECKING:
    from bessemer.store.objects import ObjectTable

log = structlog.get_logger(__name__)

SYSTEM = Writer("system", "store")
TELLER = "bessemer"
PER_OBJECT_MAX = 50
AGE_SECONDS = 86_400
_PRUNED_AT_ONCE = 200
_NAME_MAX = 253 - 17
_MESSAGE_MAX = 1_024

FACTS = StoreKind(namespaced=True, api_version="v1", parts=())

_ABOUT = objects.join(dependents, dependents.c.uid == objects.c.uid)
# An expression, so that what leads is the owner's index and not that of all events.
_IS_EVENT = is_kind(objects.c.kind.concat(literal_column("''")), EVENT)
_SOME = select(func.count()).select_from(dependents).where(of(dependents.c.owner))
"""As many dependents as an object has it may have events, and no more."""
_COUNT = select(func.count()).select_from(_ABOUT).where(of(dependents.c.owner), _IS_EVENT)
_OLDEST = (
    ROWS.select_from(_ABOUT)
    .where(of(dependents.c.owner), _IS_EVENT)
    .order_by(objects.c.revision)
    .limit(bindparam("count"))
)
_HERE = ROWS.where(of(objects.c.kind), of(objects.c.namespace))
_AGED = ROWS.where(is_kind(objects.c.kind, EVENT), objects.c.updated < bindparam("before")).limit(_PRUNED_AT_ONCE)


class EventTable:
    """Implements `ports.Events`."""

    def __init__(self, committer: Committer, objects: ObjectTable) -> None:
        self._committer = committer
        self._objects = objects

    async def emit(self, key: Key, uid: str, reason: str, message: str, *, warning: bool = False) -> None:
        """Note that it happened, or that it happened again."""
        kind = "Warning" if warning else "Normal"
        await self._committer.submit(lambda tx: _emit(tx, key, uid=uid, words=(kind, reason, message[:_MESSAGE_MAX])))

    async def tell(self, body: Mapping[str, Any], writer: Writer, *, happenings: Sequence[Happening]) -> Stored:
        """In one transaction. Where each statement waits for a network the status, which asks nothing that is not
        foreseen, goes first: an event that is lost then is lost."""
        if not self._committer.foresees:
            return await self._objects.replace(body, writer, part="status", tells=happenings)
        stored = await self._objects.replace(body, writer, part="status")
        for one in happenings:
            try:
                await self.emit(stored.key, stored.uid, one.reason, one.message, warning=one.warning)
            except BessemerError as error:
                log.warning("event lost", object_uid=stored.uid, reason=one.reason, error=str(error))
        return stored


def note(tx: Tx, about: Stored, *, happenings: Sequence[Happening], first: bool = False) -> None:
    """What the write of a status told, with it. ``first``: it had none before."""
    for one in happenings:
        kind = "Warning" if one.warning else "Normal"
        _emit(tx, about.key, uid=about.uid, words=(kind, one.reason, one.message[:_MESSAGE_MAX]), first=first)
        first = False


def _emit(tx: Tx, about: Key, *, uid: str, words: tuple[str, str, str], first: bool = False) -> None:
    digest = hashlib.sha256("\0".join((uid, *words)).encode()).hexdigest()[:16]
    key = Key(EVENT, about.namespace or "default", f"{about.name[:_NAME_MAX]}.{digest}")
    now = rfc3339(tx.now)
    # Of what has just begun nothing was told, and it is not looked for: was it all the same, the group runs again.
    row = None if first and not tx.careful else find(tx, key)
    if row is not None and row.document().get("reportingComponent") != TELLER:
        remove(tx, row)  # somebody's own, under a name that is ours
    elif row is not None:
        document = row.document()
        document["count"] += 1
        document["lastTimestamp"] = now
        save(tx, document, before=row)
        return
    # Asked before this one counts, so that nothing which the group has put off need be written for the answer. Where
    # this is the first and there are too many, the next one finds it.
    many = not first and tx.one(_SOME, of_owner=uid)[0] >= PER_OBJECT_MAX
    saved = save(tx, _new(key, about, uid=uid, words=words, at=tx.now), before=None)
    own(tx, saved.uid, owners={uid: False})
    surplus = tx.one(_COUNT, of_owner=uid)[0] - PER_OBJECT_MAX if many else 0
    if surplus > 0:
        for old in tx.all(_OLDEST, of_owner=uid, count=surplus):
            remove(tx, Row.of(old))


def _new(key: Key, about: Key, *, uid: str, words: tuple[str, str, str], at: float) -> Document:
    involved: dict[str, Any] = {"apiVersion": API_VERSION, "kind": about.kind, "name": about.name, "uid": uid}
    if about.namespace:
        involved["namespace"] = about.namespace
    document = fresh({"metadata": {}}, key, facts=FACTS, now=at)
    return document | {
        "involvedObject": involved,
        "type": words[0],
        "reason": words[1],
        "message": words[2],
        "count": 1,
        "firstTimestamp": rfc3339(at),
        "lastTimestamp": rfc3339(at),
        "source": {"component": TELLER},
        "reportingComponent": TELLER,
        "reportingInstance": "",
    }


def forget(tx: Tx, project: str) -> None:
    """Nothing that was told under a name is told to whoever has it next."""
    for row in tx.all(_HERE, of_kind=EVENT, of_namespace=project):
        remove(tx, Row.of(row))


def prune(tx: Tx) -> int:
    """Drop some that nobody will ask for any more; answers how many."""
    rows = tx.all(_AGED, before=int(tx.now) - AGE_SECONDS)
    for row in rows:
        remove(tx, Row.of(row))
    return len(rows)
