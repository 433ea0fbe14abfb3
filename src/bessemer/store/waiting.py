"""Deletions that are not done at once: in the foreground, and such that leave behind what was owned.

As in Kubernetes, the object is marked and bears a finalizer, ``foregroundDeletion`` until none of its dependents blocks
it any more, ``orphan`` until none names it; a deletion that wishes otherwise takes them off. The table of cascades has
a row for each such object, so that whoever sees to its dependents goes on where it was left, and so that the end of any
other object costs no look at its owners' bodies. What happens to the dependents is `cascade`'s, what goes at once
`collect`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import NamedTuple

import orjson
from sqlalchemy import bindparam, delete, insert, literal_column, select, update

from bessemer.core.ports import Policy, Writer
from bessemer.store import documents
from bessemer.store.documents import Document
from bessemer.store.kinds import CLAIM
from bessemer.store.rows import Row, by_uid
from bessemer.store.schema import cascades, dependents, objects, of
from bessemer.store.transaction import Tx

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"
ALL = "~"
"""Behind every uid."""

_SAID = (f'"{FOREGROUND}"'.encode(), f'"{ORPHAN}"'.encode())
_BLOCKS = b'"blockOwnerDeletion":true'
_FIND = select(cascades.c.upto, cascades.c.writer).where(of(cascades.c.uid))
_BEGIN = insert(cascades)
_GO_ON = update(cascades).values(upto=bindparam("upto")).where(of(cascades.c.uid))
_FORGET = delete(cascades).where(of(cascades.c.uid))
_BLOCKED = (
    select(dependents.c.uid)
    .select_from(dependents.join(objects, dependents.c.uid == objects.c.uid))
    .where(of(dependents.c.owner), dependents.c.blocks > literal_column("0"))
    .limit(1)
)


class Waiting(NamedTuple):
    """An object that waits, up to which of its dependents were seen to, and who asked for it."""

    row: Row
    upto: str
    writer: Writer

    @property
    def finalizers(self) -> list[str]:
        return documents.finalizers(self.row.document())


def held(document: Document, policy: Policy | None) -> Document:
    """``document`` with the finalizers of a deletion by that policy; None leaves it to those that it has."""
    names = documents.finalizers(document)
    if document["kind"] == CLAIM:
        return document  # whose end is its agent's to say
    wished = policy or ("Orphan" if ORPHAN in names else "Foreground" if FOREGROUND in names else "Background")
    added = {"Orphan": [ORPHAN], "Foreground": [FOREGROUND], "Background": []}[wished]
    wanted = [*others(names), *added]
    return document if wanted == names else documents.with_finalizers(document, wanted)


def others(names: Sequence[str]) -> list[str]:
    """The finalizers that are not ours to take off."""
    return [name for name in names if name not in (FOREGROUND, ORPHAN)]


def waits(row: Row) -> bool:
    """Whether it bears one of ours."""
    return any(word in row.body for word in _SAID) and others(names := documents.finalizers(row.document())) != names


def begin(tx: Tx, uid: str, *, writer: Writer, anew: bool) -> None:
    """Note that it waits. Harmless when repeated; ``anew`` is where something else is wished than before."""
    if anew:
        forget(tx, uid)
    if tx.one(_FIND, of_uid=uid) is None:
        tx.run(_BEGIN, uid=uid, upto="", writer=orjson.dumps(asdict(writer)).decode())
        tx.unseen += 1


def find(tx: Tx, uid: str) -> Waiting | None:
    """None where it does not wait, or no more."""
    noted = tx.one(_FIND, of_uid=uid)
    if noted is None:
        return None
    row = by_uid(tx, uid)
    if row is None or not waits(row) or not documents.deleting(row.document()):
        forget(tx, uid)
        return None
    return Waiting(row, noted[0], _writer(noted[1]))


def _writer(said: str) -> Writer:
    """Who asked; a process of a newer release may have said more of him."""
    words = orjson.loads(said)
    return Writer(**{one.name: words[one.name] for one in fields(Writer) if one.name in words})


def upto(tx: Tx, uid: str) -> str:
    """Up to which of its dependents were seen to; all where it does not wait."""
    noted = tx.one(_FIND, of_uid=uid)
    return str(noted[0]) if noted is not None else ALL


def go_on(tx: Tx, uid: str, *, upto: str) -> None:
    """Its dependents were seen to up to that one."""
    tx.run(_GO_ON, of_uid=uid, upto=upto)


def forget(tx: Tx, uid: str) -> None:
    """It waits no more."""
    tx.run(_FORGET, of_uid=uid)


def over(tx: Tx, uid: str) -> Waiting | None:
    """The object, if it waited and has nothing to wait for any more."""
    noted = tx.one(_FIND, of_uid=uid)
    if noted is None or noted[0] != ALL:
        return None
    found = find(tx, uid)
    if found is None or (FOREGROUND in found.finalizers and tx.one(_BLOCKED, of_owner=uid) is not None):
        return None
    return found


def blocked_by(document: Document) -> list[str]:
    """The uids of those that wait for it, where they are deleted in the foreground."""
    return [owner for owner, blocks in documents.bonds_of(document).items() if blocks]


def blocked_by_row(row: Row) -> list[str]:
    """`blocked_by`, of most at no cost."""
    return blocked_by(row.document()) if _BLOCKS in row.body else []
