"""What roles give, as exact sets. Pure: no directory, no store, no clock.

A `Cell` is one verb upon one kind, or upon a subresource of it. `Rights` maps cells to names: None is every name. A
`Grant` is rights at a `Place`. Wildcards are written out over the cells that people may have at all, so that two sets
can be compared cell by cell. Rights by name hold no ``create``: what is not there yet has no name.

Where an object is, `place_of` says: what belongs to a tenant by its name (Tenant, Project, Role, RoleBinding) is there
as much as what is in its projects. Who holds what is not known here: see ``api.directory``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple

from bessemer.core.resource import READ, SEPARATOR, Kind, Role, tenant_of

ALL = "*"
Names = frozenset[str] | None
NO_NAMES: frozenset[str] = frozenset()

_MEMBERS: tuple[Role, ...] = ("tenant-admin", "member", "reader")
BUILT_IN: Mapping[str, tuple[Role, ...]] = MappingProxyType(
    {
        "admin": ("admin", *_MEMBERS, "anyone"),
        "operator": ("operator",),
        "auditor": ("auditor",),
        "tenant-admin": _MEMBERS,
        "member": _MEMBERS[1:],
        "reader": _MEMBERS[2:],
        "billing-reader": ("billing-reader",),
    }
)
"""The roles that can be bound, and the rows of kinds that each has."""

SYSTEM: tuple[Role, ...] = ("anyone", "agent", "gateway", "portal")
"""Roles that nobody is bound to."""

OF_TENANT = frozenset(["Project", "Role", "RoleBinding"])
"""Kinds outside projects whose names say the tenant, as ``TENANT--NAME``."""


class Cell(NamedTuple):
    """``subresource`` "" is the object itself."""

    kind: str
    subresource: str
    verb: str

    @property
    def creates(self) -> bool:
        """Whether it is about what is not there yet."""
        return self.verb == "create" and not self.subresource

    @property
    def about(self) -> str:
        """``Instance/log``."""
        return "/".join(filter(None, (self.kind, self.subresource))) or "the platform"


ADMINISTER = Cell("", "", "administer")
"""What goes by no kind: others' passwords and links, questions about others, the server's own figures. It is of the
role ``admin`` alone, and no wildcard means it."""

TRAIL = Cell("", "trail", "read")
"""The audit trail: all of it, or a tenant's."""

_BESIDES: Mapping[str, Sequence[Cell]] = MappingProxyType(
    {"admin": (ADMINISTER, TRAIL), "auditor": (TRAIL,), "tenant-admin": (TRAIL,)}
)
"""What built-in roles give that no kind has a row of."""

Rights = Mapping[Cell, Names]
NOTHING: Rights = MappingProxyType({})


class Place(NamedTuple):
    """Everywhere, a tenant, or one of its projects."""

    tenant: str = ""
    project: str = ""

    def holds(self, other: Place) -> bool:
        """Whether all that is there is here."""
        return (not self.tenant or self.tenant == other.tenant) and (not self.project or self.project == other.project)


EVERYWHERE = Place()
_PLACES_KEPT = 4096
"""Of projects: each request asks for its own several times."""


@lru_cache(_PLACES_KEPT)
def place_of_project(project: str) -> Place:
    """Of what is in a project; everywhere for none."""
    return Place(tenant_of(project), project) if project else EVERYWHERE


def place_of(kind: str, namespace: str, *, name: str) -> Place:
    """Where an object is, or would be."""
    if namespace:
        return place_of_project(namespace)
    if kind == "Tenant":
        return Place(name)
    if kind == "Project":
        return place_of_project(name)
    return Place(tenant_of(name)) if kind in OF_TENANT else EVERYWHERE


@dataclass(frozen=True, slots=True)
class Grant:
    """A role's rights at a place. ``inside``: whether they are about what is in projects there, or those themselves."""

    rights: Rights
    place: Place = EVERYWHERE
    inside: bool = True

    def upon(self, cell: Cell, place: Place) -> Names:
        """Of what names it gives the cell there, whatever may come to be there."""
        return self.rights.get(cell, NO_NAMES) if self.place.holds(place) else NO_NAMES


def joined(one: Names, other: Names) -> Names:
    """Names of either."""
    return None if one is None or other is None else one | other


def shared(one: Names, other: Names) -> Names:
    """Names of both."""
    if one is None or other is None:
        return other if one is None else one
    return one & other


def united(parts: Iterable[Rights]) -> dict[Cell, Names]:
    """Rights of any of them."""
    found: dict[Cell, Names] = {}
    for part in parts:
        for cell, names in part.items():
            found[cell] = joined(found.get(cell, NO_NAMES), names)
    return found


def named(rights: Rights, names: Names) -> dict[Cell, Names]:
    """The rights upon those names alone."""
    if names is None:
        return dict(rights)
    kept = {cell: shared(had, names) for cell, had in rights.items() if not cell.creates}
    return {cell: left for cell, left in kept.items() if left != NO_NAMES}


class Rulebook:
    """What the roles come to over some kinds. ``built_in`` are those that can be bound, ``system`` the others."""

    def __init__(self, kinds: Iterable[Kind[Any, Any]]) -> None:
        self._kinds = {kind.name: kind for kind in kinds}
        rows: dict[str, Rights] = {role: self._rows(rows) for role, rows in BUILT_IN.items()}
        self.cells = frozenset(united(rows.values()))
        """All that people may have of kinds."""
        self.built_in: Mapping[str, Rights] = {
            role: MappingProxyType({**rights, **dict.fromkeys(_BESIDES.get(role, ()))}) for role, rights in rows.items()
        }
        self.system: Mapping[str, Rights] = {role: self._rows([role]) for role in SYSTEM}

    def rights(self, spec: Mapping[str, Any]) -> Rights:
        """Of a custom Role, by its spec as JSON."""
        parts: list[Rights] = [self.built_in.get(role, NOTHING) for role in spec.get("includes", ())]
        return united([*parts, *(self._rule(rule) for rule in spec.get("rules", ()))])

    def grant(self, rights: Rights, place: Place = EVERYWHERE, *, about: tuple[str, str] | None = None) -> Grant:
        """The rights there; ``about`` one object (kind, name) alone."""
        if about is not None:
            kind, name = about
            mine = {cell: names for cell, names in rights.items() if cell.kind == kind}
            rights = named(mine, frozenset([name]))
        return Grant(rights, place, any(self._inside(cell) for cell in rights))

    def located(self, rights: Rights, place: Place) -> Iterator[tuple[Cell, Place, Names]]:
        """What the rights are about at a place, each part where it is: of hosts nothing, in a tenant; of a Project by
        its name, at that project."""
        for cell, names in rights.items():
            kind = self._kinds.get(cell.kind)
            if kind is None or kind.namespaced or (place == EVERYWHERE and names is None):
                yield cell, place, names
            elif cell.kind == "PricePlan" and place != EVERYWHERE:
                if cell.verb in READ:
                    yield cell, place, names
            else:
                yield from _by_name(cell, place, names=names)

    def _inside(self, cell: Cell) -> bool:
        kind = self._kinds.get(cell.kind)
        return kind is not None and (kind.namespaced or cell.kind == "Project")

    def _rows(self, rows: Sequence[Role]) -> Rights:
        found: dict[Cell, Names] = {}
        for kind in self._kinds.values():
            for below, row in [("", kind.rights), *kind.below.items()]:
                found |= {Cell(kind.name, below, verb): None for role in rows for verb in row.get(role, ())}
        return MappingProxyType(found)

    def _rule(self, rule: Mapping[str, Any]) -> Rights:
        kinds, verbs, below = rule["kinds"], rule["verbs"], rule.get("subresources") or [""]
        cells = [
            cell
            for cell in self.cells
            if _says(kinds, cell.kind)
            and _says(verbs, cell.verb)
            and (cell.subresource in below or (ALL in below and cell.subresource))
        ]
        return named(dict.fromkeys(cells), frozenset(rule["names"]) if rule.get("names") else None)


def missing(wanted: Grant, held: Sequence[Grant], *, book: Rulebook) -> list[Cell]:
    """What a grant gives that is not among those held, whatever there is or may come to be."""
    lacking: dict[Cell, None] = {}
    for cell, place, names in book.located(wanted.rights, wanted.place):
        had: Names = NO_NAMES
        for grant in held:
            had = joined(had, grant.upon(cell, place))
        if had is not None and (names is None or not names <= had):
            lacking[cell] = None
    return sorted(lacking)


def beyond(new: Rights, old: Rights) -> dict[Cell, Names]:
    """What is in one and not in the other."""
    found: dict[Cell, Names] = {}
    for cell, names in new.items():
        had = old.get(cell, NO_NAMES)
        left = names if names is None or had is None else names - had
        if had is not None and left != NO_NAMES:
            found[cell] = left
    return found


def _says(values: Sequence[str], value: str) -> bool:
    return value in values or ALL in values


def _by_name(cell: Cell, place: Place, *, names: Names) -> Iterator[tuple[Cell, Place, Names]]:
    """Of a kind outside projects, what lies within a place."""
    if names is None:
        # A tenant has one Tenant, a project one Project; of Roles and Projects a tenant may come to have any.
        one = {"Tenant": place.tenant if not place.project else "", "Project": place.project}.get(cell.kind, "")
        if one:
            yield cell, place, frozenset([one]) if not cell.creates else None
        elif cell.kind in OF_TENANT and not place.project:
            yield cell, place, None
        return
    for name in sorted(names):
        at = place_of(cell.kind, "", name=name)
        if place.holds(at) and _possible(cell.kind, name):
            yield cell, at, frozenset([name])


def _possible(kind: str, name: str) -> bool:
    """Whether something of a kind can have that name."""
    if kind == "Tenant":
        return SEPARATOR not in name
    return kind != "Project" or bool(tenant_of(name))
