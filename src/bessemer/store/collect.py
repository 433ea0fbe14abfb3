"""Deletion, and what goes with it.

An object with finalizers is marked and waits for them; without, it goes at once, and what it owned follows in the same
transaction by the same rule. A Claim is only marked: its hardware is freed by `Capacity.release` alone. A dependent
with another owner that lives stays. Events are about an object, not owned by it: they outlive it and are pruned by age.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from sqlalchemy import bindparam, delete, select

from bessemer.core.errors import Conflict
from bessemer.core.ports import Writer
from bessemer.store import audit, difference, documents, quota, walls
from bessemer.store.kinds import CLAIM, EVENT, PROJECT, TENANT, StoreKind
from bessemer.store.rows import BY_UID, Row, exists, remove, save
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
_OF_OWNER = select(dependents.c.uid).where(of(dependents.c.owner)).order_by(dependents.c.uid)
_OWNERS = select(dependents.c.owner).where(of(dependents.c.uid))
_FORGET = delete(dependents).where(of(dependents.c.owner))


def begin_deletion(tx: Tx, row: Row, *, writer: Writer, kinds: Kinds) -> Row:
    """Mark what something must be done for first; remove the rest. Harmless when repeated."""
    document = row.document()
    if row.key.kind != CLAIM and not documents.finalizers(document):
        return finish_deletion(tx, row, writer=writer, kinds=kinds)
    return mark(tx, row, writer=writer, verb="delete")


def mark(tx: Tx, row: Row, *, writer: Writer, verb: str) -> Row:
    """Set deletionTimestamp, once."""
    document = row.document()
    if documents.deleting(document):
        return row
    audit.append(tx, writer, verb=verb, key=row.key, uid=row.uid)
    return save(tx, documents.doomed(document, now=tx.now), before=row)


def finish_deletion(tx: Tx, row: Row, *, writer: Writer, kinds: Kinds, verb: str = "delete") -> Row:
    """Remove the row and begin the deletion of what it owned. Answers the row with the deletion's revision.

    Raises Conflict for a project in which something is left, and for a tenant with a project: it would belong to
    nobody, or to the next of that name.
    """
    name = row.key.name
    if row.key.kind == PROJECT:
        _require_empty(tx, name, kinds=kinds)
        quota.forget(tx, f"project/{name}")
    elif row.key.kind == TENANT:
        _require_no_project(tx, name)
        quota.forget(tx, f"tenant/{name}")
        walls.forget(tx, name)
    first = _drop(tx, row, writer=writer, kinds=kinds, verb=verb)
    orphaned = deque(_orphans(tx, row.uid))
    while orphaned:
        dependent = orphaned.popleft()
        if dependent.key.kind == CLAIM or documents.finalizers(dependent.document()):
            mark(tx, dependent, writer=writer, verb="collect")
        else:
            _drop(tx, dependent, writer=writer, kinds=kinds, verb="collect")
            orphaned.extend(_orphans(tx, dependent.uid))
    return first


def _drop(tx: Tx, row: Row, *, writer: Writer, kinds: Kinds, verb: str) -> Row:
    facts = kinds.get(row.key.kind)
    if facts is not None and facts.meter:
        quota.count(tx, row.key, meter=facts.meter, by=-1)
    audit.append(tx, writer, verb=verb, key=row.key, uid=row.uid, change=difference.gone(row.document()))
    return remove(tx, row)


def _require_empty(tx: Tx, project: str, *, kinds: Kinds) -> None:
    for kind, facts in kinds.items():
        if facts.namespaced and kind != EVENT and tx.one(_ANY, of_kind=kind, of_namespace=project) is not None:
            raise Conflict(f"project {project} still holds a {kind}")


def _require_no_project(tx: Tx, tenant: str) -> None:
    left = tx.one(_PROJECT_OF, of_kind=PROJECT, first=f"{tenant}--", beyond=f"{tenant}-.")
    if left is not None:
        raise Conflict(f"tenant {tenant} still has project {left[0]}")


def _orphans(tx: Tx, owner: str) -> list[Row]:
    """Those whose last living owner this was."""
    found = []
    for (uid,) in tx.all(_OF_OWNER, of_owner=owner):
        row = tx.one(BY_UID, of_uid=uid)
        if row is None or row[0] == EVENT:
            continue
        if not any(exists(tx, other) for (other,) in tx.all(_OWNERS, of_uid=uid) if other != owner):
            found.append(Row.of(row))
    if found:
        tx.run(_FORGET, of_owner=owner)
    return found
