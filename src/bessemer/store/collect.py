"""Deletion, and what goes with it.

An object with finalizers is marked and waits for them; without, it goes at once, and what it owned follows in the same
transaction by the same rule. A Claim is only marked: its hardware is freed by `Capacity.release` alone. A dependent
with another owner that lives stays. Events are about an object, not owned by it: they outlive it and are pruned by age.
An object that waits for its dependents (`waiting`) goes in the transaction in which the last that blocks it goes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from math import inf

from sqlalchemy import bindparam, delete, select

from bessemer.core.errors import Conflict
from bessemer.core.ports import Policy, Writer
from bessemer.core.quota import amount_in
from bessemer.core.resource import Key
from bessemer.store import audit, bounds, difference, documents, quota, waiting, walls
from bessemer.store.documents import Document
from bessemer.store.kinds import CLAIM, EVENT, PROJECT, TENANT, StoreKind
from bessemer.store.known import Known, Look, Rows
from bessemer.store.rows import Row, by_uid, exists, place, remove, save, who_owns
from bessemer.store.schema import dependents, objects, of
from bessemer.store.transaction import Tx

Kinds = Mapping[str, StoreKind]

_ANY = select(objects.c.name).where(of(objects.c.kind), of(objects.c.namespace)).limit(1)
# Names of projects begin with their tenant's and "--"; "." follows "-".
_PROJECT_OF = (
    select(objects.c.name)
    .where(
        of(objects.c.kind),
        objects.c.namespace == "",
        objects.c.name >= bindparam("first"),
        objects.c.name < bindparam("beyond"),
    )
    .limit(1)
)
_OF_KEY = (
    select(objects.c.uid, dependents.c.uid)
    .select_from(objects.outerjoin(dependents, dependents.c.owner == objects.c.uid))
    .where(of(objects.c.kind), of(objects.c.namespace), of(objects.c.name))
    .order_by(dependents.c.uid)
)
_OF_OWNER = select(dependents.c.uid).where(of(dependents.c.owner)).order_by(dependents.c.uid)
_FORGET = delete(dependents).where(of(dependents.c.owner))


def look(key: Key) -> Look:
    """What a deletion asks of an object that owns nothing; `rows.look` apart."""
    return Look(_OF_KEY, place(key), _learn)


def _learn(known: Known, rows: Rows) -> None:
    for owner in {owner for owner, _ in rows}:
        theirs = [(uid,) for of, uid in rows if of == owner and uid is not None]
        known.set(_OF_OWNER, {"of_owner": owner}, rows=theirs)


def begin_deletion(
    tx: Tx, row: Row, *, writer: Writer, kinds: Kinds, policy: Policy | None = None, verb: str = "delete"
) -> Row:
    """Mark what something must be done for first; remove the rest. Harmless when repeated. What it owns goes by
    ``policy``; None is by the finalizers that stand there, and in the background where none says so."""
    before = row.document()
    document = waiting.held(before, policy)
    if row.key.kind != CLAIM and not documents.finalizers(document):
        going = row if document is before else row._replace(body=documents.encode(document, most=inf))
        return finish_deletion(tx, going, writer=writer, kinds=kinds, verb=verb)
    return _hold(tx, row, document=document, writer=writer, verb=verb)


def _hold(tx: Tx, row: Row, *, document: Document, writer: Writer, verb: str) -> Row:
    """Mark it, with the finalizers of ``document``."""
    left = mark(tx, row, document=document, writer=writer, verb=verb)
    if waiting.waits(left):
        waiting.begin(tx, left.uid, writer=writer, anew=left is not row)
    return left


def mark(tx: Tx, row: Row, *, writer: Writer, verb: str, document: Document | None = None) -> Row:
    """Set deletionTimestamp, once, in its body or in that which is to take its place."""
    before = row.document()
    document = before if document is None else document
    if not documents.deleting(document):
        document = documents.doomed(document, now=tx.now)
    if document == before:
        return row
    audit.append(tx, writer, verb=verb, key=row.key, uid=row.uid)
    return save(tx, document, before=row, bounded=False)


def finish_deletion(tx: Tx, row: Row, *, writer: Writer, kinds: Kinds, verb: str = "delete") -> Row:
    """Remove the row and begin the deletion of what it owned. Answers the row with the deletion's revision.

    Raises Conflict for a project in which something is left, and for a tenant with a project: it would belong to
    nobody, or to the next of that name.
    """
    if refusal := _refusal(tx, row.key, kinds=kinds):
        raise Conflict(refusal)
    first = _drop(tx, row, writer=writer, kinds=kinds, verb=verb)
    _follow(tx, _orphans(tx, row.uid), owners=waiting.blocked_by_row(row), writer=writer, kinds=kinds)
    return first


def relieve(tx: Tx, owners: Iterable[str], *, writer: Writer, kinds: Kinds) -> None:
    """Something no longer blocks these: let those go that waited for it alone."""
    _follow(tx, [], owners=owners, writer=writer, kinds=kinds)


def _follow(tx: Tx, lost: Iterable[Row], *, owners: Iterable[str], writer: Writer, kinds: Kinds) -> None:
    """What has lost its last owner goes, then owners that waited for what went, and so on."""
    orphaned, waited = deque(lost), deque(owners)
    while orphaned or waited:
        if orphaned:
            one, by = orphaned.popleft(), writer
            document = one.document()
            if one.key.kind == CLAIM or documents.finalizers(document):
                _hold(tx, one, document=waiting.held(document, None), writer=writer, verb="collect")
                continue
        elif (done := _done(tx, waited.popleft(), kinds=kinds)) is not None:
            one, by = done
        else:
            continue
        _drop(tx, one, writer=by, kinds=kinds, verb="collect")
        orphaned.extend(_orphans(tx, one.uid))
        waited.extend(waiting.blocked_by_row(one))


def _done(tx: Tx, owner: str, *, kinds: Kinds) -> tuple[Row, Writer] | None:
    """An owner that waited, and is to go now; None where there is none, or it waits for something else yet."""
    found = waiting.over(tx, owner)
    if found is None:
        return None
    left = waiting.others(found.finalizers)
    document = documents.with_finalizers(found.row.document(), left)
    if left:
        waiting.forget(tx, owner)
        save(tx, document, before=found.row, bounded=False)
        return None
    if _refusal(tx, found.row.key, kinds=kinds):
        return None  # it is looked at again
    waiting.forget(tx, owner)
    return found.row._replace(body=documents.encode(document, most=inf)), found.writer


def _drop(tx: Tx, row: Row, *, writer: Writer, kinds: Kinds, verb: str) -> Row:
    name = row.key.name
    if row.key.kind == PROJECT:
        quota.forget(tx, f"project/{name}")
    elif row.key.kind == TENANT:
        quota.forget(tx, f"tenant/{name}")
        walls.forget(tx, name)
    if row.key.kind in bounds.KINDS:
        bounds.forget(tx, row.key.kind, project=row.key.namespace, name=name)
    facts = kinds.get(row.key.kind)
    if facts is not None and facts.meter and (by := amount_in(row.document(), facts.counts)):
        quota.count(tx, row.key, meter=facts.meter, by=-by)
    audit.append(tx, writer, verb=verb, key=row.key, uid=row.uid, change=difference.gone(row.document()))
    return remove(tx, row)


def _refusal(tx: Tx, key: Key, *, kinds: Kinds) -> str:
    """Why it cannot go yet; "" where it can."""
    if key.kind == PROJECT:
        for kind, facts in kinds.items():
            if facts.namespaced and kind != EVENT and tx.one(_ANY, of_kind=kind, of_namespace=key.name) is not None:
                return f"project {key.name} still holds a {kind}"
    if key.kind == TENANT:
        left = tx.one(_PROJECT_OF, of_kind=PROJECT, first=f"{key.name}--", beyond=f"{key.name}-.")
        if left is not None:
            return f"tenant {key.name} still has project {left[0]}"
    return ""


def _orphans(tx: Tx, owner: str) -> list[Row]:
    """Those whose last living owner this was."""
    found = []
    for (uid,) in tx.look(_OF_OWNER, of_owner=owner):
        row = by_uid(tx, uid)
        if row is None or row.key.kind == EVENT:
            continue
        if not any(exists(tx, other) for other in who_owns(tx, uid) if other != owner):
            found.append(row)
    if found:
        tx.run(_FORGET, of_owner=owner)
    return found
