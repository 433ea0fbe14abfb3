"""Stored bodies of older versions: converted as they are read, and rewritten in place some at a time.

A rewriting keeps the revision and makes no change: what is served is the same before and after. It is found out anew
each time what is left, so that it may stop at any point and go on in any process.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sqlalchemy import bindparam, or_, select, update

from bessemer.core.ports import Page, Stored
from bessemer.core.resource import Change
from bessemer.core.versions import Document, Forward
from bessemer.store.kinds import StoreKind
from bessemer.store.schema import changes, objects, of
from bessemer.store.transaction import Tx

_AT_ONCE = 200
_OLDER = (
    select(objects.c.namespace, objects.c.name, objects.c.revision, objects.c.body)
    .where(of(objects.c.kind), or_(objects.c.body < bindparam("of_head"), objects.c.body >= bindparam("of_end")))
    .limit(bindparam("most"))
)
# Whoever wrote it since has converted it, too.
_REWRITE = (
    update(objects)
    .values(body=bindparam("body"))
    .where(of(objects.c.kind), of(objects.c.namespace), of(objects.c.name), of(objects.c.revision))
)
_REWRITE_CHANGE = update(changes).values(body=bindparam("body")).where(of(changes.c.revision))


class Forwarding:
    """What the kinds with several versions need, by name; for all others nothing is done or looked at."""

    def __init__(self, kinds: Mapping[str, StoreKind]) -> None:
        self._of = {name: facts.forward for name, facts in kinds.items() if facts.forward is not None}

    def stored(self, stored: Stored) -> Stored:
        """As it is served."""
        to = self._of.get(stored.key.kind)
        if to is None or stored.body.startswith(to.head):
            return stored
        return replace(stored, body=to.body(stored.body))

    def page(self, page: Page, kind: str) -> Page:
        """All of it as it is served."""
        to = self._of.get(kind)
        if to is None or all(item.body.startswith(to.head) for item in page.items):
            return page
        return replace(page, items=[self.stored(item) for item in page.items])

    def change(self, change: Change) -> Change:
        """As it is served."""
        to = self._of.get(change.key.kind)
        if to is None or change.body.startswith(to.head):
            return change
        return replace(change, body=to.body(change.body))

    def document(self, document: Document) -> Document:
        """As it is stored from now on."""
        to = self._of.get(str(document.get("kind")))
        return document if to is None else to.document(document)

    def versions(self) -> list[tuple[str, Forward]]:
        """Kinds of several versions."""
        return list(self._of.items())


def rewrite(tx: Tx, forwarding: Forwarding) -> int:
    """Bring some of what is stored in an older version to the newest; answers how many."""
    done = 0
    for kind, to in forwarding.versions():
        end = to.head[:-1] + bytes([to.head[-1] + 1])  # what begins with the head lies between the two
        rows = tx.all(_OLDER, of_kind=kind, of_head=to.head, of_end=end, most=_AT_ONCE)
        for namespace, name, revision, old in rows:
            body = to.body(bytes(old))
            if body == old:
                continue  # of a version that nobody knows
            place = {"of_kind": kind, "of_namespace": namespace, "of_name": name, "of_revision": revision}
            done += tx.run(_REWRITE, **place, body=body)
            tx.run(_REWRITE_CHANGE, of_revision=revision, body=body)
    return done
