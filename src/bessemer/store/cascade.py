"""The dependents of what waits: those of a deletion in the foreground go before their owner, those of one that leaves
them behind lose it.

A few of them are an operation (`PART`), so that other writers go between; where there are no more, all is over in the
transaction that marked the owner. The others are seen to by the process that was asked (`Cascades.run`), or, where that
ended, by whichever tidies next. `waiting` knows how far each is, and `collect` lets the owner go.

Invariants: a dependent is read where it is seen to, so that it goes, and is counted, once; what follows its owner
whatever is wished (`kinds.FOLLOWERS`) is never left behind; a Claim is left to its owner's reconcile where there is
one; rings of owners that wait for each other are cut where the last of them would begin to wait.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TypeVar

import structlog
from sqlalchemy import bindparam, select, update

from bessemer.core.errors import Unavailable
from bessemer.core.ports import Policy
from bessemer.store import audit, difference, documents, waiting
from bessemer.store.collect import begin_deletion, relieve
from bessemer.store.documents import Document
from bessemer.store.kinds import CLAIM, EVENT, FOLLOWERS, StoreKind
from bessemer.store.known import Look
from bessemer.store.rows import Row, by_uid, save, who_owns
from bessemer.store.runner import Operation
from bessemer.store.schema import cascades, dependents, is_kind, objects, of
from bessemer.store.transaction import Tx
from bessemer.store.waiting import ALL, FOREGROUND, ORPHAN, Waiting
from bessemer.store.writer import Committer

log = structlog.get_logger(__name__)

Kinds = Mapping[str, StoreKind]
T = TypeVar("T")

PART = 32
"""Dependents that an operation sees to."""

_ABOVE_MAX = 64
"""Owners that are looked at above one; where there are more it is taken for a ring."""

_NEXT = (
    select(dependents.c.uid)
    .where(of(dependents.c.owner), dependents.c.uid > bindparam("after"))
    .order_by(dependents.c.uid)
    .limit(bindparam("count"))
)
_KINDS = (
    select(objects.c.kind)
    .select_from(dependents.join(objects, dependents.c.uid == objects.c.uid))
    .where(of(dependents.c.owner), objects.c.kind != EVENT)
)
_OWNS = _KINDS.limit(1)
_NAMED = _KINDS.where(*(~is_kind(objects.c.kind, kind) for kind in sorted(FOLLOWERS))).limit(1)
_PENDING = select(cascades.c.uid).where(cascades.c.uid > bindparam("after"), cascades.c.upto != ALL).limit(1)
_AGAIN = update(cascades).values(upto="").where(cascades.c.upto == ALL)


class Cascades:
    """Sees to the dependents of whatever waits."""

    def __init__(self, committer: Committer, *, kinds: Kinds) -> None:
        self._committer = committer
        self._kinds = kinds
        self._asked = asyncio.Event()

    async def submit(self, operation: Operation[T], *, dry_run: bool = False, looks: Sequence[Look] | None = None) -> T:
        """`Committer.submit`, of what may leave something to see to: then whoever runs is told."""

        def act(tx: Tx) -> tuple[T, bool]:
            before = tx.unseen
            return operation(tx), tx.unseen > before

        value, left = await self._committer.submit(act, dry_run=dry_run, looks=looks)
        if left and not dry_run:
            self._asked.set()
        return value

    async def run(self) -> None:
        """For ever: whenever there is. Where the store cannot write, whoever tidies goes on."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            try:
                await self.work()
            except Unavailable as error:
                log.warning("dependents of what is deleted wait", why=str(error))

    async def again(self) -> None:
        """Look once more at what still waits: for what was made meanwhile, or by a process of an older release."""
        await self._committer.submit(lambda tx: tx.run(_AGAIN))
        await self.work()

    async def work(self) -> None:
        """Pass by pass, until every dependent was seen to: what one begins may stand before it. Raises Unavailable."""
        stuck, more = set[str](), True
        while more:
            uid, more = "", False
            while uid := await self._committer.submit(partial(_pending, after=uid)):
                if uid in stuck:
                    continue
                more = True
                if not await self._through(uid):
                    stuck.add(uid)

    async def _through(self, uid: str) -> bool:
        """Part by part, all dependents of one; whether that could be. Where a part fails they go one by one, and those
        that cannot go are passed by until the next round of tidying. Raises Unavailable."""
        most, stuck = PART, set[str]()
        while True:
            more = await self._part(uid, most=most)
            if more is None and most == 1:
                one = await self._committer.submit(partial(_pass_by, uid=uid))
                if not one or one in stuck:
                    return False
                stuck.add(one)
            elif more is None:
                most = 1
            elif not more:
                return not stuck

    async def _part(self, uid: str, *, most: int) -> bool | None:
        """`advance`; None where something of it fails. Raises Unavailable."""
        try:
            return await self._committer.submit(partial(advance, uid=uid, kinds=self._kinds, most=most), apart=True)
        except Unavailable:
            raise
        except Exception as error:
            log.warning("dependents of what is deleted cannot go", uid=uid, most=most, why=repr(error))
            return None


def _pending(tx: Tx, *, after: str) -> str:
    found = tx.one(_PENDING, after=after)
    return str(found[0]) if found is not None else ""


def _pass_by(tx: Tx, *, uid: str) -> str:
    """Leave the next dependent where it is; its uid, "" where there is none."""
    found = tx.one(_NEXT, of_owner=uid, after=waiting.upto(tx, uid), count=1)
    if found is None:
        return ""
    waiting.go_on(tx, uid, upto=found[0])
    return str(found[0])


def advance(tx: Tx, uid: str, *, kinds: Kinds, most: int = PART) -> bool:
    """See to some dependents of what waits, and to theirs. Whether there are more, of its own or of theirs."""
    line = deque([uid])
    while line and most > 0:
        owner = waiting.find(tx, line.popleft())
        if owner is None or owner.upto == ALL:
            continue
        found = [one for (one,) in tx.all(_NEXT, of_owner=owner.row.uid, after=owner.upto, count=most)]
        for one in found:
            line.extend(_see_to(tx, one, owner=owner, kinds=kinds))
        if len(found) == most:
            waiting.go_on(tx, owner.row.uid, upto=found[-1])
        else:
            _seen(tx, owner, kinds=kinds)
        most -= len(found)
    left = waiting.find(tx, uid)
    return bool(line) or (left is not None and left.upto != ALL)


def _seen(tx: Tx, owner: Waiting, *, kinds: Kinds) -> None:
    """All of its dependents were seen to."""
    uid = owner.row.uid
    if ORPHAN in owner.finalizers and tx.one(_NAMED, of_owner=uid) is not None:
        waiting.go_on(tx, uid, upto="")  # made meanwhile
        return
    waiting.go_on(tx, uid, upto=ALL)
    relieve(tx, [uid], writer=owner.writer, kinds=kinds)


def _see_to(tx: Tx, uid: str, *, owner: Waiting, kinds: Kinds) -> list[str]:
    """One dependent; answers those that wait for their own from now on."""
    row = by_uid(tx, uid)
    if row is None or row.key.kind == EVENT:
        return []
    document = row.document()
    if ORPHAN in owner.finalizers:
        if row.key.kind not in FOLLOWERS:
            _disown(tx, row, document=document, owner=owner)
        return []
    if any(_lives(tx, other) for other in documents.owners_of(document) if other != owner.row.uid):
        _disown(tx, row, document=document, owner=owner)
        return []
    if row.key.kind == CLAIM and waiting.others(owner.finalizers):
        return []
    policy = _policy(tx, row, document=document, owner=owner)
    left = begin_deletion(tx, row, writer=owner.writer, kinds=kinds, policy=policy, verb="collect")
    return [uid] if waiting.waits(left) else []


def _disown(tx: Tx, row: Row, *, document: Document, owner: Waiting) -> None:
    """Let it stay, and name that owner no more."""
    left = documents.without_owner(document, owner.row.uid)
    save(tx, left, before=row, bounded=False)
    change = difference.between(document, left)
    audit.append(tx, owner.writer, verb="update", key=row.key, uid=row.uid, change=change)


def _lives(tx: Tx, uid: str) -> bool:
    """Whether an owner keeps its dependents."""
    row = by_uid(tx, uid)
    return row is not None and not _in_foreground(row)


def _in_foreground(row: Row) -> bool:
    document = row.document()
    return documents.deleting(document) and FOREGROUND in documents.finalizers(document)


def _policy(tx: Tx, row: Row, *, document: Document, owner: Waiting) -> Policy:
    """How a dependent of what is deleted in the foreground goes: as its own finalizers say, and with its dependents
    before it where it has any."""
    names = documents.finalizers(document)
    if ORPHAN in names:
        return "Orphan"
    if FOREGROUND not in names and tx.one(_OWNS, of_owner=row.uid) is None:
        return "Background"
    return "Background" if _above(tx, owner.row.uid, uid=row.uid) else "Foreground"


def _above(tx: Tx, owner: str, *, uid: str) -> bool:
    """Whether an owner's own owners that wait lead up to the object of that uid: a ring."""
    seen, line = {owner}, deque([owner])
    while line:
        for above in who_owns(tx, line.popleft()):
            if above == uid or len(seen) > _ABOVE_MAX:
                return True
            if above not in seen and (row := by_uid(tx, above)) is not None and _in_foreground(row):
                seen.add(above)
                line.append(above)
    return False
