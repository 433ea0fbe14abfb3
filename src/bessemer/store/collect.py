"""Deletion, and what goes with it.

An object with finalizers is marked and waits for them; without, it goes at once, and what it owned follows in the same
transaction by the same rule. A Claim is only marked: its hardware is freed by `Capacity.release` alone. A dependent
with another owner that lives stays. Events are about an object, not owned by it: they outlive it and are pruned by age.

In the foreground the object is held by a finalizer of ours until the last that it owned is gone; whoever removes that
one lets it go, in the same transaction. Claims whose owner has a controller are retired by that, in its order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

from sqlalchemy import bindparam, delete, select

from bessemer.core.errors import Conflict
from bessemer.core.ports import Propagation, Writer
from bessemer.store import audit, documents, quota
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


FOREGROUND = "foregroundDeletion"
"""As Kubernetes names it."""


def begin_deletion(tx: Tx, row: Row, *, writer: Writer, kinds: Kinds, propagation: Propagation = "Background") -> Row:
    """Mark what something must be done for first; remove the rest. Harmless when repeated."""
    document = row.document()
    if propagation == "Orphan":
        _set_free(tx, row, writer=writer)
    elif propagation == "Foreground" and row.key.kind not in (PROJECT, TENANT) and not documents.deleting(document):
        return _from_below(tx, row, writer=writer, kinds=kinds)
    if row.key.kind != CLAIM and not documents.finalizers(document):
        return finish_deletion(tx, row, writer=writer, kinds=kinds)
    return mark(tx, row, writer=writer, verb="delete")


def _set_free(tx: Tx, row: Row, *, writer: Writer) -> None:
    """What it owned stays without it, but for Claims: hardware is nobody's to keep without a workload."""
    for owned in _owned(tx, row.uid):
        if owned.key.kind != CLAIM:
            _disown(tx, owned, owner=row.uid, writer=writer)


def _disown(tx: Tx, row: Row, *, owner: str, writer: Writer) -> None:
    document = row.document()
    metadata = dict(document["metadata"])
    kept = [one for one in metadata.pop("ownerReferences", ()) if one["uid"] != owner]
    metadata |= {"ownerReferences": kept} if kept else {}
    audit.append(tx, writer, verb="orphan", key=row.key, uid=row.uid)
    save(tx, {**document, "metadata": metadata}, before=row)


def _from_below(tx: Tx, row: Row, *, writer: Writer, kinds: Kinds) -> Row:
    """Mark the object and all that goes with it, each held for what it owns itself; then remove what nothing holds."""
    answer, free, left, known = row, deque[Row](), deque([row]), set[str]()
    while left:
        here = left.popleft()
        document = here.document()
        if here.uid in known or documents.deleting(document):
            continue
        known.add(here.uid)
        below = _followers(tx, here, writer=writer)
        if here.key.kind == CLAIM or not below:
            free.append(here)
            continue
        led = bool(documents.finalizers(document))
        left.extend(one for one in below if not (led and one.key.kind == CLAIM))
        names = dict.fromkeys([*documents.finalizers(document), FOREGROUND])
        held = {**document["metadata"], "finalizers": list(names)}
        here = here._replace(body=documents.encode({**document, "metadata": held}))
        marked = mark(tx, here, writer=writer, verb="delete" if here.uid == row.uid else "collect")
        answer = marked if here.uid == row.uid else answer
    if row in free:
        return begin_deletion(tx, row, writer=writer, kinds=kinds)
    for one in free:
        if one.key.kind == CLAIM or documents.finalizers(one.document()):
            mark(tx, one, writer=writer, verb="collect")
        else:
            finish_deletion(tx, one, writer=writer, kinds=kinds, verb="collect")
    return answer


def _followers(tx: Tx, row: Row, *, writer: Writer) -> list[Row]:
    """What goes with a row. What somebody who stays owns, too, has this owner no more."""
    found = []
    for owned in _owned(tx, row.uid):
        others = [tx.one(BY_UID, of_uid=uid) for (uid,) in tx.all(_OWNERS, of_uid=owned.uid) if uid != row.uid]
        if any(other is not None and not documents.deleting(Row.of(other).document()) for other in others):
            _disown(tx, owned, owner=row.uid, writer=writer)
        else:
            found.append(owned)
    return found


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
    first = _drop(tx, row, writer=writer, kinds=kinds, verb=verb)
    left = deque(_after(tx, row))
    while left:
        other = left.popleft()
        if other.key.kind == CLAIM or documents.finalizers(other.document()):
            mark(tx, other, writer=writer, verb="collect")
        else:
            _drop(tx, other, writer=writer, kinds=kinds, verb="collect")
            left.extend(_after(tx, other))
    return first


def _after(tx: Tx, gone: Row) -> list[Row]:
    """What the end of a row reaches: what it owned, and owners that only waited for it."""
    return [*_orphans(tx, gone.uid), *released(tx, documents.owners_of(gone.document()))]


def released(tx: Tx, owners: Iterable[str]) -> list[Row]:
    """Those of the owners that were held for what they own, and own nothing any more. One that something else holds
    is written without that finalizer; the others are the caller's to remove."""
    found = []
    for uid in owners:
        row = tx.one(BY_UID, of_uid=uid)
        if row is None or row[0] in (PROJECT, TENANT) or _owned(tx, uid):
            continue
        owner = Row.of(row)
        document = owner.document()
        held = documents.finalizers(document)
        if FOREGROUND not in held or not documents.deleting(document):
            continue
        metadata = {**document["metadata"], "finalizers": [name for name in held if name != FOREGROUND]}
        if metadata["finalizers"]:
            save(tx, {**document, "metadata": metadata}, before=owner)
            continue
        del metadata["finalizers"]
        found.append(owner._replace(body=documents.encode({**document, "metadata": metadata})))
    return found


def _drop(tx: Tx, row: Row, *, writer: Writer, kinds: Kinds, verb: str) -> Row:
    facts = kinds.get(row.key.kind)
    if facts is not None and facts.meter:
        quota.count(tx, row.key.namespace, meter=facts.meter, by=-1)
    audit.append(tx, writer, verb=verb, key=row.key, uid=row.uid)
    return remove(tx, row)


def _require_empty(tx: Tx, project: str, *, kinds: Kinds) -> None:
    for kind, facts in kinds.items():
        if facts.namespaced and kind != EVENT and tx.one(_ANY, of_kind=kind, of_namespace=project) is not None:
            raise Conflict(f"project {project} still holds a {kind}")


def _require_no_project(tx: Tx, tenant: str) -> None:
    left = tx.one(_PROJECT_OF, of_kind=PROJECT, first=f"{tenant}--", beyond=f"{tenant}-.")
    if left is not None:
        raise Conflict(f"tenant {tenant} still has project {left[0]}")


def _owned(tx: Tx, owner: str) -> list[Row]:
    """What names it as an owner, events apart."""
    rows = (tx.one(BY_UID, of_uid=uid) for (uid,) in tx.all(_OF_OWNER, of_owner=owner))
    return [Row.of(row) for row in rows if row is not None and row[0] != EVENT]


def _orphans(tx: Tx, owner: str) -> list[Row]:
    """Those whose last living owner this was."""
    found = [
        row
        for row in _owned(tx, owner)
        if not any(exists(tx, other) for (other,) in tx.all(_OWNERS, of_uid=row.uid) if other != owner)
    ]
    if found:
        tx.run(_FORGET, of_owner=owner)
    return found
