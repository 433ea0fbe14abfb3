"""Object rows inside a transaction: load, save, remove, each with its change. Every write of an object ends here.

Invariant: a row, its change, its owners and its revision are written together. What may be written is decided before.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any, NamedTuple

from sqlalchemy import ARRAY, Select, Text, bindparam, cast, delete, func, insert, select, true, update

from bessemer.core.errors import NotFound
from bessemer.core.ports import Stored
from bessemer.core.resource import Change, Key
from bessemer.store.documents import (
    BODY_BYTES_MAX,
    ENDING_BYTES,
    Document,
    bonds_of,
    decode,
    deleting,
    encode,
    host_of,
    labels_of,
    read_labels,
)
from bessemer.store.feed import CHANGE_TYPES, Entry
from bessemer.store.kinds import EVENT
from bessemer.store.known import Look
from bessemer.store.schema import changes, dependents, labels, objects, of, sealed
from bessemer.store.transaction import Tx, put

_COLUMNS = (
    objects.c.kind,
    objects.c.namespace,
    objects.c.name,
    objects.c.uid,
    objects.c.host,
    objects.c.generation,
    objects.c.revision,
    objects.c.labels,
    objects.c.body,
)
_THIS = (of(objects.c.kind), of(objects.c.namespace), of(objects.c.name))

ROWS: Select[Any] = select(*_COLUMNS)
LOAD = ROWS.where(*_THIS)
_ARRAYS = (cast(bindparam(name), ARRAY(Text)) for name in Key._fields)
_ASKED = func.unnest(*_ARRAYS).table_valued(*Key._fields).render_derived(name="asked")
_FOUND = ROWS.where(*(objects.c[name] == _ASKED.c[name] for name in Key._fields)).limit(1).lateral("found")
LOAD_EACH = select(_FOUND).select_from(_ASKED.join(_FOUND, true()))
"""`LOAD` of several, whose kinds, namespaces and names come as arrays: a server's alone. The limit has each looked for
by itself: else a plan that is made while the table is empty may read all of it later."""
BY_UID = ROWS.where(of(objects.c.uid))
_EXISTS = select(objects.c.kind).where(of(objects.c.uid))
_INSERT = insert(objects)
_UPDATE = (
    update(objects)
    .values({name: bindparam(name) for name in ("generation", "revision", "updated", "labels", "body")})
    .where(*_THIS)
)
_DELETE = delete(objects).where(*_THIS)
_CHANGE = insert(changes)
_OWNED = insert(dependents)
_OWNERS = select(dependents.c.owner).where(of(dependents.c.uid))
_LABEL = insert(labels)
_UNLABEL = delete(labels).where(
    of(labels.c.kind), of(labels.c.namespace), of(labels.c.name), of(labels.c.label), of(labels.c.value)
)
_DISOWN = delete(dependents).where(of(dependents.c.uid))
_UNSEAL = delete(sealed).where(of(sealed.c.uid))


class Row(NamedTuple):
    """An object as its row has it."""

    key: Key
    uid: str
    host: str
    generation: int
    revision: int
    labels: str
    body: bytes

    @classmethod
    def of(cls, row: Any) -> Row:
        """From the columns of `ROWS`."""
        return cls(Key(row[0], row[1], row[2]), *row[3:])

    def stored(self) -> Stored:
        """As the ports know it."""
        return Stored(self.key, self.uid, self.revision, self.generation, self.host, self.body)

    def document(self) -> Document:
        """Its body, to be changed."""
        return decode(self.body)


def place(key: Key) -> dict[str, str]:
    """The parameters of a statement on one object."""
    return {"of_kind": key.kind, "of_namespace": key.namespace, "of_name": key.name}


def look(key: Key) -> Look:
    """What `find` asks."""
    return Look(LOAD, place(key))


def find(tx: Tx, key: Key) -> Row | None:
    """The row, or None."""
    rows = tx.known.at(LOAD, key)
    for row in tx.look(LOAD, **place(key)) if rows is None else rows:
        return Row(key, *row[3:])
    return None


def load(tx: Tx, key: Key) -> Row:
    """The row. Raises NotFound."""
    row = find(tx, key)
    if row is None:
        raise NotFound(f"{key} does not exist")
    return row


def by_uid(tx: Tx, uid: str) -> Row | None:
    """The row, or None."""
    row = tx.one(BY_UID, of_uid=uid)
    return Row.of(row) if row is not None else None


def who_owns(tx: Tx, uid: str) -> list[str]:
    """Whom an object goes with."""
    return [owner for (owner,) in tx.all(_OWNERS, of_uid=uid)]


def exists(tx: Tx, uid: str) -> bool:
    """Whether any object has the uid."""
    return bool(tx.look(_EXISTS, of_uid=uid))


def save(tx: Tx, document: Document, *, before: Row | None, bounded: bool = True) -> Row:
    """Write a new body and its change; the body gets the revision. What a deletion itself writes is not ``bounded``:
    else what is full could not go. Raises TooLarge."""
    metadata = document["metadata"]
    revision = tx.next_revision()
    metadata["resourceVersion"] = str(revision)
    key = Key(document["kind"], metadata.get("namespace", ""), metadata["name"])
    row = Row(
        key,
        metadata["uid"],
        host_of(document),
        metadata.get("generation", 1),
        revision,
        labels_of(document),
        encode(document, most=_most(document) if bounded else inf),
    )
    here, at = place(key), int(tx.now)
    values = {"generation": row.generation, "revision": revision, "updated": at, "labels": row.labels, "body": row.body}
    after, owners = [(*key, *row[1:])], bonds_of(document)
    if before is None:
        new = {"kind": key.kind, "namespace": key.namespace, "name": key.name, "uid": row.uid, "host": row.host}
        put(tx, _INSERT, values={**new, **values}, look=Look(LOAD, here), rows=after)
        own(tx, row.uid, owners=owners)
        _append(tx, 0, row=row, at=at, labels_before="")
    else:
        put(tx, _UPDATE, values={**here, **values}, look=Look(LOAD, here), rows=after)
        if owners != bonds_of(before.document()):
            disown(tx, row.uid)
            own(tx, row.uid, owners=owners)
        _append(tx, 1, row=row, at=at, labels_before=before.labels)
    _index(tx, key, before=before.labels if before is not None else "", after=row.labels)
    return row


def _most(document: Document) -> int:
    return BODY_BYTES_MAX + (ENDING_BYTES if deleting(document) else 0)


def remove(tx: Tx, before: Row) -> Row:
    """Drop the row with its sealed values; the change's body carries the revision of the deletion."""
    revision = tx.next_revision()
    document = before.document()
    document["metadata"]["resourceVersion"] = str(revision)
    row = before._replace(revision=revision, body=encode(document, most=inf))
    here = place(row.key)
    put(tx, _DELETE, values=here, look=Look(LOAD, here), rows=[])
    if bonds_of(document) or row.key.kind == EVENT:
        disown(tx, row.uid)
    _index(tx, row.key, before=before.labels, after="")
    if row.key.kind != EVENT:
        tx.add(_UNSEAL, of_uid=row.uid)
    _append(tx, 2, row=row, at=int(tx.now), labels_before=before.labels)
    return row


def disown(tx: Tx, uid: str) -> None:
    """It goes with nobody any more."""
    tx.add(_DISOWN, of_uid=uid)


def look_uid(uid: str) -> Look:
    """What `exists` asks."""
    return Look(_EXISTS, {"of_uid": uid})


def own(tx: Tx, uid: str, *, owners: Mapping[str, bool]) -> None:
    """Note whom an object goes with, and which of those wait for it."""
    for owner, blocks in owners.items():
        tx.add(_OWNED, owner=owner, uid=uid, blocks=int(blocks))


def _index(tx: Tx, key: Key, *, before: str, after: str) -> None:
    if before == after:
        return
    old, new = read_labels(before), read_labels(after)
    for label, value in old.items() - new.items():
        tx.add(_UNLABEL, **place(key), of_label=label, of_value=value)
    for label, value in new.items() - old.items():
        tx.add(_LABEL, **key._asdict(), label=label, value=value)


def _append(tx: Tx, kind: int, *, row: Row, at: int, labels_before: str) -> None:
    key, uid, host, generation, revision, labels, body = row
    tx.add(
        _CHANGE,
        revision=revision,
        at=at,
        type=kind,
        kind=key.kind,
        namespace=key.namespace,
        name=key.name,
        uid=uid,
        host=host,
        labels=labels,
        labels_before=labels_before,
        body=body,
    )
    before = read_labels(labels_before) if kind else None
    change = Change(revision, CHANGE_TYPES[kind], key, uid, host, body, before)
    tx.entries.append(Entry(change, labels, generation))
