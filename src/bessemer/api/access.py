"""Who may do what: deny by default, by the asker's grants where the object is, cut by the bounds of their credential.

What an asker may not even read is not found; what is readable and not writable is forbidden. An agent sees its Host and
its host's Claims, nothing else; the gateway of the Claims those of Endpoints. A PricePlan is there for the tenants that
are billed by it. A list shows those that the asker may read, and says nothing of the rest. Every decision is made of
`grants` alone, and reads no store; whether rights may be given on is `granting`'s to ask.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import orjson

from bessemer.api.context import Identity
from bessemer.api.directory import Directory
from bessemer.api.errors import Subject, no_namespace, not_found
from bessemer.api.grants import Grants
from bessemer.api.shown import Shown
from bessemer.core.errors import Forbidden, NotFound
from bessemer.core.ports import Objects, Scope
from bessemer.core.resource import READ, Key, Verb
from bessemer.kinds.tenancy.rights import (
    EVERYWHERE,
    NO_NAMES,
    OF_TENANT,
    Cell,
    Grant,
    Names,
    Place,
    joined,
    place_of,
    place_of_project,
    shared,
)
from bessemer.kinds.workload import LABEL_KIND

TENANTS_OWN = frozenset(["Tenant", *OF_TENANT])
"""Kinds in no project whose names say whose they are."""

_OWNED = TENANTS_OWN | {"PricePlan"}
_SERVED = "Endpoint"
"""Whose Claims the gateway reads."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a request is about. ``name`` "" is the collection, ``namespace`` "" all projects (or none). ``subresource``
    is one that has rights of its own."""

    resource: Shown
    namespace: str = ""
    name: str = ""
    subresource: str = ""

    @property
    def subject(self) -> Subject:
        return self.resource.subject(self.name)

    @property
    def key(self) -> Key:
        return Key(self.resource.stored, self.namespace, self.name)

    @property
    def place(self) -> Place:
        """Where it is."""
        return place_of(self.resource.stored, self.namespace, name=self.name)

    @property
    def tenant(self) -> str:
        """The tenant that owns it, or ""."""
        return self.place.tenant

    def cell(self, verb: Verb) -> Cell:
        """The right that is asked for."""
        return Cell(self.resource.stored, self.subresource, verb)


class Access(Grants):
    """Decides with the directory in memory; an agent's Claims are looked up."""

    def __init__(self, directory: Directory, objects: Objects) -> None:
        super().__init__(directory)
        self._objects = objects

    def may(self, who: Identity, verb: Verb, *, on: Target) -> bool:
        """By grants alone; see `require` for what an agent's objects are, and the gateway's."""
        if not on.subresource and verb not in on.resource.verbs:
            return False
        names = self._names(who, verb, on=on)
        return names is None or on.name in names

    async def require(self, who: Identity, verb: Verb, *, on: Target) -> None:
        """One object, or a create of one. Raises NotFound where it may not be read, Forbidden else."""
        creates = verb == "create" and not on.subresource
        unread = creates or verb == "get" or bool(on.subresource)  # goes without the right to read the object
        if self.may(who, verb, on=on) and (unread or self.may(who, "get", on=on)) and await self._own(who, on):
            return
        readable = self.may(who, "get", on=replace(on, subresource="")) and await self._own(who, on)
        if on.name and not readable and not creates:
            raise not_found(on.subject)
        if on.namespace and not self.sees_project(who, on.namespace):
            raise no_namespace(on.namespace)
        mine = on.tenant in self.tenants(who) and not self.administers(who)
        why = self._directory.terms(on.tenant).why_not(on.tenant) if mine else ""
        raise forbidden(who, verb, on=replace(on, name="") if creates else on, why=why)

    def scope(self, who: Identity, verb: Verb, *, on: Target) -> Scope:
        """What a list or a watch may show. Raises NotFound for a project that may not be known, Forbidden for a kind
        that nobody like the asker may list."""
        resource, kind = on.resource, on.resource.stored
        if who.kind == "agent":
            return self._agents(who, verb, on=on)
        names = self._names(who, verb, on=on) if verb in resource.verbs else NO_NAMES
        if names is None:
            return self._whole(who, Scope(kind=kind, namespace=on.namespace or None))
        if on.namespace:
            if names:
                return Scope(kind=kind, namespace=on.namespace, names=names)
            if not self.sees_project(who, on.namespace):
                raise no_namespace(on.namespace)
            raise forbidden(who, verb, on=on)
        seen = self.seen(who, verb, on=on)
        if not seen and not self._for_tenants(who, verb, resource=resource):
            raise forbidden(who, verb, on=on)
        if not resource.namespaced:
            return Scope(kind=kind, names=seen.get("", NO_NAMES))
        if all(names is None for names in seen.values()):
            return Scope(kind=kind, namespaces=frozenset(seen))
        return Scope(kind=kind, places=seen)

    def begins(self, scope: Scope) -> int:
        """The revision from which on what happened in a scope is of the tenants and projects that are there now. What
        is everything's is so from the first."""
        known = [scope.namespace] if scope.namespace else [*(scope.namespaces or ()), *(scope.places or ())]
        places = [place_of_project(project) for project in known if project]
        if scope.kind in TENANTS_OWN:
            places += [place_of(scope.kind, "", name=name) for name in scope.names or ()]
        return max(map(self._directory.begins, places), default=0)

    def seen(self, who: Identity, verb: Verb, *, on: Target) -> Mapping[str, Names]:
        """Upon what of that which is there somebody has the right: names by project, "" for what is in none."""
        found: dict[str, Names] = {}
        resource, cell = on.resource, on.cell(verb)
        for grant in self.grants(who):
            names = grant.rights.get(cell, NO_NAMES)
            if names is not None and not names:
                continue
            if resource.namespaced:
                parts = dict.fromkeys(self._directory.projects(grant.place), names)
            elif grant.place == EVERYWHERE:
                parts = {"": names}
            else:
                parts = {"": shared(self._directory.there(resource.stored, grant.place), names)}
            for place, more in parts.items():
                found[place] = joined(found.get(place, NO_NAMES), more)
        return {place: names for place, names in found.items() if names != NO_NAMES}

    def _names(self, who: Identity, verb: Verb, *, on: Target) -> Names:
        """Of what names somebody has the right where the target is."""
        cell, place = on.cell(verb), on.place
        found: Names = NO_NAMES
        for grant in self.grants(who):
            known = who.bounds is None or who.bounds.knows(grant.place.tenant)
            at = grant.place if known and self._billed(grant, verb, on=on) else place
            found = joined(found, grant.upon(cell, at))
            if found is None:
                break
        return found

    def _billed(self, grant: Grant, verb: Verb, *, on: Target) -> bool:
        """Whether the target is the price plan by which the grant's tenant pays."""
        if on.resource.stored != "PricePlan" or not on.name or not grant.place.tenant:
            return False
        return verb in READ and self._directory.terms(grant.place.tenant).plan == on.name

    def _whole(self, who: Identity, scope: Scope) -> Scope:
        """What is a whole collection to who asks."""
        served = who.kind == "gateway" and scope.kind == "Claim"
        return replace(scope, labels={LABEL_KIND: _SERVED}) if served else scope

    def _for_tenants(self, who: Identity, verb: Verb, *, resource: Shown) -> bool:
        """Whether the kind is one that tenants list: then somebody without a tenant sees an empty list."""
        owned = resource.namespaced or resource.stored in _OWNED
        if verb not in READ or who.kind != "user" or who.bounds is not None or not owned:
            return False
        return Cell(resource.stored, "", verb) in self._directory.book.built_in["tenant-admin"]

    def _agents(self, who: Identity, verb: Verb, *, on: Target) -> Scope:
        kind = on.resource.stored
        if not self.may(who, verb, on=on) or on.resource.view is not None:
            raise forbidden(who, verb, on=on)
        if kind == "Host":
            return Scope(kind=kind, names=frozenset([who.name]))
        if kind == "Claim":
            return Scope(kind=kind, namespace=on.namespace or None, host=who.name)
        raise forbidden(who, verb, on=on)

    async def _own(self, who: Identity, on: Target) -> bool:
        """Whether a named object is an agent's own, or one that the gateway serves from. Nobody else is asked."""
        claim = on.resource.kind == "Claim" and bool(on.name)
        if who.kind not in ("agent", "gateway") or (who.kind == "gateway" and not claim):
            return True
        if on.resource.kind == "Host":
            return on.name == who.name
        if not claim:
            return False
        try:
            found = await self._objects.get(on.key)
        except NotFound:
            return False
        if who.kind == "agent":
            return found.host == who.name
        return bool(orjson.loads(found.body)["spec"]["workload"]["kind"] == _SERVED)


def forbidden(who: Identity, verb: str, *, on: Target, why: str = "") -> Forbidden:
    """The words of Kubernetes for a refusal."""
    resource = on.resource
    place = f' in the namespace "{on.namespace}"' if on.namespace else ""
    name = f' "{on.name}"' if on.name else ""
    what = f"{resource.plural}/{on.subresource}" if on.subresource else resource.plural
    return Forbidden(
        f'{resource.plural}.{resource.group or "core"}{name} is forbidden: User "{who.name}" cannot {verb} resource '
        f'"{what}" in API group "{resource.group}"{place}{f": {why}" if why else ""}'
    )


def intent_names(body: bytes, digest: str) -> bool:
    """Whether a Claim's intent names a content. Its status does not count: an agent writes that."""
    return digest.encode() in orjson.dumps(orjson.loads(body)["spec"].get("intent", {}))
