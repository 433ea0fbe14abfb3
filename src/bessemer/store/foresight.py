"""What an operation on an object will ask, said beforehand: on a server it is asked as the transaction begins.

Invariant: it decides nothing. What is missing here is asked where it is needed, at the price of another run; what is
too much is a read by key. None stands for an operation that asks things which only its run brings up.
"""

from __future__ import annotations

from collections.abc import Sequence

from bessemer.core.ports import Part
from bessemer.core.resource import Key, tenant_of
from bessemer.store import audit, collect, crowd, documents, money, quota, walls
from bessemer.store.documents import Document
from bessemer.store.kinds import API_KEY, CLAIM, PROJECT, TENANT, StoreKind
from bessemer.store.known import Look
from bessemer.store.rows import look, look_uid

Looks = Sequence[Look] | None

_BOUNDING = (TENANT, PROJECT, API_KEY)
"""Kinds with bounds, which are compared with what stands."""


def of_create(said: Document, key: Key, *, facts: StoreKind) -> Looks:
    """Of `objects.create`, without sealed values."""
    if key.kind in _BOUNDING:
        return None
    looks = [look(key), audit.LOOK, *walls.looks(key), *map(look_uid, documents.owners_of(said))]
    if facts.meter:
        looks += [*money.asked(key.namespace, tenant=tenant_of(key.namespace)), *quota.looks(key, meter=facts.meter)]
    if facts.most:
        looks.append(crowd.look(key))
    return looks


def of_replace(said: Document, key: Key, *, part: Part, facts: StoreKind) -> Looks:
    """Of `objects.replace`, without sealed values. Whose status moves a ledger asks it."""
    if key.kind in _BOUNDING or (part != "main" and key.kind == CLAIM):
        return None
    if part == "main" and documents.deleting(said):
        return of_delete(key, facts=facts)
    meters = quota.looks(key, meter=facts.meter) if part == "status" and facts.counts else ()
    return [look(key), audit.LOOK, *meters]


def of_delete(key: Key, *, facts: StoreKind) -> Looks:
    """Of `objects.delete`, where nothing goes with the object."""
    if key.kind in _BOUNDING:
        return None
    meters = quota.looks(key, meter=facts.meter) if facts.meter else ()
    return [look(key), audit.LOOK, collect.look(key), *meters]
