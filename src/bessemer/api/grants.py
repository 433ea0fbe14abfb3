"""What somebody holds: by themselves, by what they are bound to, and cut by the bounds of the credential that asks.

A credential never gets more than its owner, nor than its bounds. Decisions are `access`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from bessemer.api.bounds import Bounds
from bessemer.api.context import Identity
from bessemer.api.directory import Directory
from bessemer.api.holdings import Subject
from bessemer.core.resource import READ, tenant_of
from bessemer.kinds.tenancy.rights import (
    ADMINISTER,
    EVERYWHERE,
    NO_NAMES,
    NOTHING,
    TRAIL,
    Cell,
    Grant,
    Names,
    Place,
    Rights,
    joined,
    named,
    place_of_project,
    shared,
    united,
)

_READ_ROLES = Cell("Role", "", "get")

_KEPT_MAX = 8192
"""Askers whose grants are kept as they were found."""


class Grants:
    """Of one directory. A request asks many times, so what somebody holds is found once for each version of it."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        book = directory.book
        self._system: Mapping[str, Sequence[Grant]] = {
            role: (book.grant(rights),) for role, rights in book.system.items()
        }
        self._admin = book.grant(book.built_in["admin"])
        self._kept: dict[Identity, Sequence[Grant]] = {}
        self._kept_at = 0

    def grants(self, who: Identity) -> Sequence[Grant]:
        """All that somebody holds, within their bounds."""
        if who.kind != "user":
            return self._system[who.kind]
        if self._kept_at != self._directory.version or len(self._kept) >= _KEPT_MAX:
            self._kept, self._kept_at = {}, self._directory.version
        found = self._kept.get(who)
        if found is None:
            found = self._unbounded(who) if who.bounds is None else self._within_bounds(who, who.bounds)
            self._kept[who] = found
        return found

    def sees_project(self, who: Identity, project: str) -> bool:
        """Whether the asker may know that a project is there, or would be."""
        place = place_of_project(project)
        return who.kind == "user" and any(grant.inside and grant.place.holds(place) for grant in self.grants(who))

    def administers(self, who: Identity) -> bool:
        """Whether somebody is an administrator of the platform, by themselves or by a binding; no credential is."""
        return any(grant.upon(ADMINISTER, EVERYWHERE) is None for grant in self.grants(who))

    def audits(self, who: Identity, tenant: str = "") -> bool:
        """Whether somebody may read the audit trail, of a tenant or ("") of everything."""
        return any(grant.upon(TRAIL, Place(tenant)) is None for grant in self.grants(who))

    def projects(self, who: Identity) -> frozenset[str]:
        """The projects that are there for somebody."""
        directory = self._directory
        seen = frozenset[str]().union(*(directory.projects(grant.place) for grant in self.grants(who) if grant.inside))
        return directory.projects() & seen

    def tenants(self, who: Identity) -> frozenset[str]:
        """The tenants in which somebody holds anything."""
        return frozenset(grant.place.tenant for grant in self.grants(who) if grant.place.tenant)

    def flow(self, who: Identity, tenant: str) -> str:
        """Whose turn a person's request takes: the tenant's that it is about, where they hold anything there; else
        that of the first tenant which has them for a member, for nobody is made one by a binding of others; else their
        own. No tenant's name has a colon."""
        if self.administers(who):
            return "platform:"
        if tenant and tenant in self.tenants(who):
            return tenant
        return min(self._directory.tenants(who.name), default=f"user:{who.name}")

    def _standing(self, grant: Grant) -> Grant:
        """What it gives now: in a tenant that is not active everybody reads, and no more."""
        tenant, book = grant.place.tenant, self._directory.book
        if not tenant or self._directory.terms(tenant).state == "Active":
            return grant
        return book.grant(
            {cell: names for cell, names in grant.rights.items() if cell.verb in (*READ, TRAIL.verb)}, grant.place
        )

    def _unbounded(self, who: Identity) -> Sequence[Grant]:
        mine = (*self._system["anyone"], *map(self._standing, self._directory.grants(holders(who))))
        return (self._admin, *mine) if who.admin else mine

    def _within_bounds(self, who: Identity, bounds: Bounds) -> Sequence[Grant]:
        """A credential's grants, as its bounds leave them."""
        book = self._directory.book
        owner = self.grants(replace(who, bounds=None, credential=""))
        program = self._directory.grants([("ApplicationCredential", who.credential)])
        whole = [*owner, *(_within(self._standing(grant), owner) for grant in program)]
        most = self._most(bounds.roles, owner) if bounds.roles is not None else None
        return tuple(book.grant(_bounded(grant.rights, bounds, most=most), grant.place) for grant in whole)

    def _most(self, roles: Iterable[str], owner: Sequence[Grant]) -> Rights:
        """What any of the roles gives. One of a tenant in which the owner holds nothing, and whose roles they may not
        read, counts as one that is nowhere: what is left would tell of it."""
        known = (role for role in roles if _knows(owner, tenant_of(role)))
        return united(self._directory.rights(role) or NOTHING for role in known)


def _knows(owner: Sequence[Grant], tenant: str) -> bool:
    mine = (grant.place.tenant == tenant or grant.upon(_READ_ROLES, Place(tenant)) is None for grant in owner)
    return not tenant or any(mine)


def _bounded(rights: Rights, bounds: Bounds, *, most: Rights | None) -> Rights:
    mine = ((cell, names) for cell, names in rights.items() if cell not in (ADMINISTER, TRAIL))
    kept = {cell: names for cell, names in mine if bounds.covers(cell.verb, cell.kind)}
    if most is not None:
        kept = {cell: shared(names, most.get(cell, NO_NAMES)) for cell, names in kept.items()}
    return named(kept, bounds.names)


def _within(grant: Grant, owner: Sequence[Grant]) -> Grant:
    """What a credential is bound to, as far as its owner holds it there."""
    rights = {}
    for cell, names in grant.rights.items():
        held: Names = NO_NAMES
        for mine in owner:
            held = joined(held, mine.upon(cell, grant.place))
        rights[cell] = shared(names, held)
    return Grant(rights, grant.place, grant.inside)


def holders(who: Identity) -> Sequence[Subject]:
    """As whom somebody may hold something."""
    groups: list[Subject] = [("Group", group) for group in who.groups]
    program: list[Subject] = [("ApplicationCredential", who.credential)] if who.credential else []
    return [("User", who.name), *groups, *program]
