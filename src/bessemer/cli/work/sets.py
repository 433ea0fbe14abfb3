"""Sets of objects that files declare together, so that what the files say no more can be found and pruned.

A set is a label on its members and nothing else (`applyset.kubernetes.io/part-of`, as kubectl has it): there is no list
that could be wrong after a crash. Its id is made of its name and its scope, so that the same name in two scopes is two
sets. Invariants: only what bears the set's label, within the scope, is ever pruned; who takes a member of another set
away from it says so.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from bessemer.client import Client
from bessemer.core.errors import Forbidden, Invalid, NotFound
from bessemer.core.ports import Scope
from bessemer.core.resource import GROUP, Key, Kind, tenant_of

PART_OF = "applyset.kubernetes.io/part-of"
OF_TENANTS = ("Project", "Role", "RoleBinding")
"""Kinds in no project whose names, ``TENANT--NAME``, say whose they are."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a set may hold: a project's objects, a tenant's (itself, its projects and all in them, its roles and their
    bindings), or any."""

    project: str = ""
    tenant: str = ""

    def holds(self, key: Key) -> bool:
        """Whether the object lies within."""
        if self.project:
            return key.namespace == self.project
        if not self.tenant:
            return True
        if key.namespace:
            return tenant_of(key.namespace) == self.tenant
        return key == Key("Tenant", "", self.tenant) or (key.kind in OF_TENANTS and tenant_of(key.name) == self.tenant)

    def kinds(self, kinds: Sequence[Kind[Any, Any]]) -> list[Kind[Any, Any]]:
        """Of which kinds something may lie within."""
        if self.project:
            return [kind for kind in kinds if kind.namespaced]
        of_tenants = ("Tenant", *OF_TENANTS)
        return [kind for kind in kinds if not self.tenant or kind.namespaced or kind.name in of_tenants]

    def __str__(self) -> str:
        if self.project:
            return f"project {self.project}"
        return f"tenant {self.tenant}" if self.tenant else "the platform"


@dataclass(frozen=True, slots=True)
class ObjectSet:
    """A set by name, within its scope."""

    name: str
    bounds: Bounds

    @property
    def id(self) -> str:
        """As KEP-3659 makes ids, of name, namespace, kind and group; the scope stands for the last three."""
        place = self.bounds.project or self.bounds.tenant
        kind = "Project" if self.bounds.project else "Tenant" if self.bounds.tenant else "Platform"
        digest = hashlib.sha256(f"{self.name}.{place}.{kind}.{GROUP}".encode()).digest()
        return f"applyset-{base64.urlsafe_b64encode(digest).decode().rstrip('=')}-v1"

    def marked(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """A body as a member."""
        metadata = body["metadata"]
        return {**body, "metadata": {**metadata, "labels": {**(metadata.get("labels") or {}), PART_OF: self.id}}}

    def require(self, key: Key, *, place: str) -> None:
        """Raises Invalid for an object that lies elsewhere."""
        if not self.bounds.holds(key):
            raise Invalid(f"{place}: {key} does not lie in {self.bounds}, which is the scope of set {self.name}")

    def __str__(self) -> str:
        return f"set {self.name} of {self.bounds}"


def other_set(now: Mapping[str, Any], own: ObjectSet | None) -> str:
    """The id of the set that an object belongs to, where that is another; else ""."""
    found = str((now["metadata"].get("labels") or {}).get(PART_OF, ""))
    return "" if found == (own.id if own else "") else found


def keeping(body: dict[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """A body that stays in the set that the object is in, where it names none itself."""
    labels = body["metadata"].get("labels") or {}
    found = other_set(now, None)
    if not found or PART_OF in labels:
        return body
    return {**body, "metadata": {**body["metadata"], "labels": {**labels, PART_OF: found}}}


async def members(client: Client, of: ObjectSet) -> dict[Key, str]:
    """What belongs to the set now, as far as one may see it, with its uid: another of that name is none of it."""
    from bessemer.kinds import KINDS

    found: dict[Key, str] = {}
    for kind in of.bounds.kinds([kind for kind in KINDS if declarable(kind)]):
        scope = Scope(kind=kind.name, namespace=of.bounds.project or None, labels={PART_OF: of.id})
        try:
            page = await client.list(scope)
        except (Forbidden, NotFound):
            continue  # of what one may not list one has applied nothing
        found |= {
            stored.key: stored.uid for stored in page.items if _is(stored.body, of) and of.bounds.holds(stored.key)
        }
    return found


def _is(body: bytes, of: ObjectSet) -> bool:
    """Whether it bears the label, whatever the server took the selector for; and is not on its way out already."""
    metadata = orjson.loads(body)["metadata"]
    return (metadata.get("labels") or {}).get(PART_OF) == of.id and "deletionTimestamp" not in metadata


def declarable(kind: Kind[Any, Any]) -> bool:
    """Whether people declare objects of the kind in files."""
    given = {verb for role, verbs in kind.rights.items() if role not in ("agent", "gateway") for verb in verbs}
    return not kind.readonly and {"create", "delete"} <= given


_FIRST = ("PricePlan", "User", "Tenant", "Project")


def in_order(keys: Sequence[Key]) -> list[Key]:
    """What holds others before what it holds; of others the order stays. To be deleted the other way round."""
    return sorted(keys, key=rank)


def rank(key: Key) -> int:
    """Where an object stands in the order in which things are made."""
    if key.kind in _FIRST:
        return _FIRST.index(key.kind)
    return len(_FIRST) + (2 if key.kind == "RoleBinding" else bool(key.namespace))  # it may be about any object
