"""Who may do what: deny by default, by a kind's row of rights and the asker's role in the tenant that owns the object.

Roles build on one another (a tenant-admin may what a member may, who may what a reader may). What an asker may not even
read is not found; what is readable and not writable is forbidden. An agent sees its Host and its host's Claims, nothing
else; the gateway of the Claims those of Endpoints. A PricePlan is there for the tenants that are billed by it. A list
over all projects shows those that the asker may read, and says nothing of the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from types import MappingProxyType

import orjson

from bessemer.api.context import Identity
from bessemer.api.directory import Directory
from bessemer.api.errors import Subject, no_namespace, not_found
from bessemer.api.shown import Shown
from bessemer.core.errors import Forbidden, NotFound
from bessemer.core.ports import Objects, Scope
from bessemer.core.resource import Key, Role, Verb, tenant_of
from bessemer.kinds.workload import LABEL_KIND

_BELOW: Mapping[str, frozenset[Role]] = MappingProxyType(
    {
        "reader": frozenset[Role](["reader"]),
        "member": frozenset[Role](["reader", "member"]),
        "tenant-admin": frozenset[Role](["reader", "member", "tenant-admin"]),
    }
)
_ADMIN = frozenset[Role](["admin", "tenant-admin", "member", "reader", "anyone"])
_TENANT_WIDE = frozenset(["Tenant", "Project", "PricePlan"])
_SERVED = "Endpoint"
"""Whose Claims the gateway reads."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a request is about. ``name`` "" is the collection, ``namespace`` "" all projects (or none)."""

    resource: Shown
    namespace: str = ""
    name: str = ""

    @property
    def subject(self) -> Subject:
        return self.resource.subject(self.name)

    @property
    def key(self) -> Key:
        return Key(self.resource.stored, self.namespace, self.name)

    @property
    def tenant(self) -> str:
        """The tenant that owns it, or ""."""
        if self.resource.namespaced:
            return tenant_of(self.namespace)
        if self.resource.stored == "Project":
            return tenant_of(self.name)
        return self.name if self.resource.stored == "Tenant" else ""


class Access:
    """Decides with the directory in memory; an agent's Claims are looked up."""

    def __init__(self, directory: Directory, objects: Objects) -> None:
        self._directory = directory
        self._objects = objects

    def roles(self, who: Identity, tenant: str) -> Set[Role]:
        """The roles of somebody towards what the tenant owns ("" is nobody's)."""
        if who.kind == "agent":
            return frozenset[Role](["agent"])
        if who.kind == "gateway":
            return frozenset[Role](["gateway"])
        if who.kind == "portal":
            return frozenset[Role](["portal"])
        if who.admin:
            return _ADMIN
        role = self._directory.role(who.name, tenant) if tenant else ""
        return _BELOW.get(role, frozenset[Role]()) | {"anyone"}

    def may(self, who: Identity, verb: Verb, *, on: Target) -> bool:
        """By the kind's row of rights alone; see `require` for what an agent's objects are, and the gateway's."""
        if verb not in on.resource.verbs:
            return False
        if on.resource.stored == "PricePlan" and on.name and who.kind == "user":
            tenants = [t for t in self._directory.tenants(who.name) if self._directory.terms(t).plan == on.name]
            return any(self._may_in(who, verb, on=on, tenant=tenant) for tenant in (*tenants, ""))
        return self._may_in(who, verb, on=on, tenant=on.tenant)

    async def require(self, who: Identity, verb: Verb, *, on: Target) -> None:
        """One object, or a collection's create. Raises NotFound where it may not be read, Forbidden else."""
        readable = self.may(who, "get", on=on) and await self._within(who, on)
        if readable and self.may(who, verb, on=on):
            return
        if on.name and not readable:
            raise not_found(on.subject)
        if on.namespace and not self.sees_project(who, on.namespace):
            raise no_namespace(on.namespace)
        mine = not who.admin and bool(self._directory.role(who.name, on.tenant))
        why = self._directory.terms(on.tenant).why_not(on.tenant) if mine else ""
        raise forbidden(who, verb, on=on, why=why)

    def scope(self, who: Identity, verb: Verb, *, on: Target) -> Scope:
        """What a list or a watch may show. Raises NotFound for a project that may not be known, Forbidden for a kind
        that nobody like the asker may list."""
        resource, namespace = on.resource, on.namespace or None
        kind = resource.stored
        if who.kind == "agent":
            return self._agents(who, verb, on=on)
        if namespace is not None:
            if not self.may(who, verb, on=on):
                if not self.sees_project(who, on.namespace):
                    raise no_namespace(on.namespace)
                raise forbidden(who, verb, on=on)
            return self._whole(who, Scope(kind=kind, namespace=namespace))
        if self.may(who, verb, on=on):
            return self._whole(who, Scope(kind=kind))
        mine = self._directory.tenants(who.name) if who.kind == "user" else ()
        tenants = [t for t in mine if self._may_in(who, verb, on=on, tenant=t)]
        if not tenants and not (who.kind == "user" and self._any_tenant(verb, resource)):
            raise forbidden(who, verb, on=on)
        if kind == "Tenant":
            return Scope(kind=kind, names=frozenset(tenants))
        if kind == "PricePlan":
            return Scope(kind=kind, names=frozenset(self._directory.terms(t).plan for t in tenants))
        projects = frozenset(p for t in tenants for p in self._directory.projects(t))
        return Scope(kind=kind, names=projects) if kind == "Project" else Scope(kind=kind, namespaces=projects)

    def sees_project(self, who: Identity, project: str) -> bool:
        """Whether the asker may know that a project is there, or would be."""
        return who.admin or (who.kind == "user" and bool(self._directory.role(who.name, tenant_of(project))))

    def has_role(self, who: Identity, project: str, *, role: Role) -> bool:
        """Whether the asker has at least that role in the project's tenant."""
        return role in self.roles(who, tenant_of(project))

    def _may_in(self, who: Identity, verb: Verb, *, on: Target, tenant: str) -> bool:
        rights = on.resource.source.rights
        return any(verb in rights.get(role, ()) for role in self.roles(who, tenant))

    def _whole(self, who: Identity, scope: Scope) -> Scope:
        """What is a whole collection to who asks."""
        served = who.kind == "gateway" and scope.kind == "Claim"
        return replace(scope, labels={LABEL_KIND: _SERVED}) if served else scope

    def _any_tenant(self, verb: Verb, resource: Shown) -> bool:
        """Whether the kind is one that members list: then somebody without a tenant sees an empty list."""
        rights = resource.source.rights
        owned = resource.namespaced or resource.stored in _TENANT_WIDE
        return owned and any(verb in rights.get(role, ()) for role in _BELOW["tenant-admin"])

    def _agents(self, who: Identity, verb: Verb, *, on: Target) -> Scope:
        kind = on.resource.stored
        if not self.may(who, verb, on=on) or on.resource.translate is not None:
            raise forbidden(who, verb, on=on)
        if kind == "Host":
            return Scope(kind=kind, names=frozenset([who.name]))
        if kind == "Claim":
            return Scope(kind=kind, namespace=on.namespace or None, host=who.name)
        raise forbidden(who, verb, on=on)

    async def _within(self, who: Identity, on: Target) -> bool:
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
    return Forbidden(
        f'{resource.plural}.{resource.group or "core"}{name} is forbidden: User "{who.name}" cannot {verb} resource '
        f'"{resource.plural}" in API group "{resource.group}"{place}{f": {why}" if why else ""}'
    )


def intent_names(body: bytes, digest: str) -> bool:
    """Whether a Claim's intent names a content. Its status does not count: an agent writes that."""
    return digest.encode() in orjson.dumps(orjson.loads(body)["spec"].get("intent", {}))
