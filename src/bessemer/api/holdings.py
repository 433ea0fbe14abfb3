"""Who holds what where, and what there is to hold it upon: told object by object, asked by subject. Pure memory.

Members of tenants and the subjects of RoleBindings are kept as grants by subject, so that somebody's are found without
a search; a Role that changes is told to each grant made of it. A binding to a Role that is not there gives nothing. How
it comes to be told is `directory`'s, what follows from it `access`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from bessemer.core.clock import epoch
from bessemer.core.resource import tenant_of
from bessemer.kinds.tenancy.rights import EVERYWHERE, NOTHING, Grant, Place, Rights, Rulebook
from bessemer.kinds.tenancy.rolebinding import place_bound
from bessemer.kinds.tenancy.tenant import Allowed, allowed, bearable

KINDS = ("Tenant", "Project", "Role", "RoleBinding")
"""What it is made of."""

_MEMBER = "Tenant "

Subject = tuple[str, str]
"""Kind (User, Group, ApplicationCredential) and name."""


@dataclass(frozen=True, slots=True)
class TenantTerms:
    """Of a tenant: roles by user, its price plan's name, the keys of the taints that its workloads may bear, its state,
    and of flavors, images and models (by the field of a workload's spec) those that it may use."""

    members: Mapping[str, str]
    plan: str
    bearable: frozenset[str]
    state: str = "Active"
    allowed: Mapping[str, Allowed] = field(default_factory=lambda: MappingProxyType({}))
    max_priority: int = 0
    made: float = 0.0
    """When: what happened before was another's of that name."""

    def why_not(self, tenant: str) -> str:
        """Why the people of the tenant, which has these terms, write nothing now; "" where they may."""
        if self.state in ("Active", "Unknown"):
            return ""
        suspended = "suspended: its people read, and write once an administrator of the platform resumes it"
        return f"tenant {tenant} is {suspended if self.state == 'Suspended' else 'closed'}"


@dataclass(frozen=True, slots=True)
class Bound:
    """What a RoleBinding says. ``about`` is one object's kind and name."""

    role: str
    subjects: frozenset[Subject]
    place: Place
    about: tuple[str, str] | None


NO_TERMS = TenantTerms(MappingProxyType({}), "", frozenset(), state="Unknown")
"""Of a tenant that is not there, or of which nothing was read yet: its people read."""


@dataclass(slots=True)
class Held:
    """Grants by subject and by what gives them."""

    _grants: dict[Subject, dict[str, Grant]] = field(default_factory=dict)

    def of(self, subjects: Iterable[Subject]) -> Iterator[Grant]:
        for subject in subjects:
            yield from self._grants.get(subject, {}).values()

    def givers(self, subject: Subject) -> Iterable[str]:
        """What gives the subject anything."""
        return self._grants.get(subject, {})

    def give(self, subjects: Iterable[Subject], by: str, *, grant: Grant) -> None:
        for subject in subjects:
            self._grants.setdefault(subject, {})[by] = grant

    def take(self, subjects: Iterable[Subject], by: str) -> None:
        for subject in subjects:
            mine = self._grants.get(subject, {})
            mine.pop(by, None)
            if not mine:
                self._grants.pop(subject, None)


class Holdings:
    """`tell` it each object, and ask. ``version`` counts what may change a decision."""

    def __init__(self, book: Rulebook) -> None:
        self.book = book
        self.version = 0
        self._tenants: dict[str, TenantTerms] = {}
        self._projects: dict[str, set[str]] = {}
        self._roles: dict[str, Rights] = {}
        self._bindings: dict[str, Bound] = {}
        self._held = Held()

    def tell(self, kind: str, name: str, *, body: Mapping[str, Any] | None) -> bool:
        """An object as it is now, None where it is gone; whether somebody may stand otherwise for it."""
        take = {"Tenant": self._tenant, "Role": self._role, "RoleBinding": self._binding}.get(kind, self._project)
        moved = take(name, body)
        self.version += moved
        return moved

    def forget(self, kind: str) -> None:
        """Objects of a kind are not known any more: nobody holds what may have been withdrawn."""
        known: Mapping[str, Iterable[str]] = {
            "Tenant": self._tenants,
            "Role": self._roles,
            "RoleBinding": self._bindings,
            "Project": self.projects(),
        }
        for name in list(known[kind]):
            self.tell(kind, name, body=None)

    def grants(self, subjects: Iterable[Subject]) -> Iterator[Grant]:
        """What those hold."""
        return self._held.of(subjects)

    def rights(self, role: str) -> Rights | None:
        """What a role gives, built in or not; None where there is none of the name."""
        return self.book.built_in[role] if role in self.book.built_in else self._roles.get(role)

    def tenants(self, user: str) -> Mapping[str, str]:
        """Tenant → role of everywhere that the user is a member."""
        given = self._held.givers(("User", user))
        mine = [by.removeprefix(_MEMBER) for by in given if by.startswith(_MEMBER)]
        return {name: self._tenants[name].members[user] for name in mine}

    def role(self, user: str, tenant: str) -> str:
        """The user's role as a member of the tenant, or ""."""
        return self.terms(tenant).members.get(user, "")

    def terms(self, tenant: str) -> TenantTerms:
        """What a tenant pays by and may; of one that is not there, nothing."""
        return self._tenants.get(tenant, NO_TERMS)

    def projects(self, place: Place = EVERYWHERE) -> frozenset[str]:
        """The names of the projects that are there; of a project itself, that, whether it is there or not."""
        if place.project:
            return frozenset([place.project])
        if place.tenant:
            return frozenset(self._projects.get(place.tenant, ()))
        return frozenset(name for names in self._projects.values() for name in names)

    def there(self, kind: str, place: Place) -> frozenset[str]:
        """The names of what is in a tenant, or is one of its projects, of a kind that is in no project."""
        if kind == "Project":
            return self.projects(place)
        if kind == "PricePlan":
            return frozenset(filter(None, [self.terms(place.tenant).plan]))
        if place.project or kind not in KINDS:
            return frozenset()
        if kind == "Tenant":
            return frozenset([place.tenant])
        known = self._roles if kind == "Role" else self._bindings
        return frozenset(name for name in known if tenant_of(name) == place.tenant)

    def _tenant(self, name: str, body: Mapping[str, Any] | None) -> bool:
        before, now = self._tenants.pop(name, NO_TERMS), NO_TERMS
        if body is not None:
            now = self._tenants[name] = _terms(body)
        by, roles = f"{_MEMBER}{name}", self.book.built_in
        moved = {*before.members.items()} ^ {*now.members.items()}
        self._held.take([("User", user) for user, _ in moved], by)
        for user, role in moved & {*now.members.items()}:
            self._held.give([("User", user)], by, grant=self.book.grant(roles.get(role, NOTHING), Place(name)))
        return before != now

    def _role(self, name: str, body: Mapping[str, Any] | None) -> bool:
        before = self._roles.pop(name, None)
        if body is not None:
            self._roles[name] = NOTHING if _going(body) else self.book.rights(body["spec"])
        for binding, bound in self._bindings.items():
            if bound.role == name:
                self._give(binding, bound)
        return before != self._roles.get(name)

    def _binding(self, name: str, body: Mapping[str, Any] | None) -> bool:
        before = self._bindings.pop(name, None)
        if before is not None:
            self._held.take(before.subjects, f"RoleBinding {name}")
        if body is not None:
            bound = self._bindings[name] = _bound(name, body)
            self._give(name, bound)
        return before != self._bindings.get(name)

    def _give(self, name: str, bound: Bound) -> None:
        rights, by = self.rights(bound.role), f"RoleBinding {name}"
        if rights is None:
            self._held.take(bound.subjects, by)
        else:
            self._held.give(bound.subjects, by, grant=self.book.grant(rights, bound.place, about=bound.about))

    def _project(self, name: str, body: Mapping[str, Any] | None) -> bool:
        names = self._projects.setdefault(tenant_of(name), set())
        if body is None:
            names.discard(name)
        else:
            names.add(name)
        return False


def _terms(tenant: Mapping[str, Any]) -> TenantTerms:
    spec, made = tenant.get("spec", {}), tenant.get("metadata", {}).get("creationTimestamp")
    return TenantTerms(
        members={member["user"]: member.get("role", "member") for member in spec.get("members", ())},
        plan=spec.get("pricePlan", "standard"),
        bearable=bearable(tenant),
        state=spec.get("state", "Active"),
        allowed=allowed(tenant),
        max_priority=spec.get("maxPriority", 0),
        made=epoch(made) if made else 0.0,
    )


def _going(body: Mapping[str, Any]) -> bool:
    """Whether its deletion was asked for: whatever still holds it, it gives nothing from then on."""
    return "deletionTimestamp" in body["metadata"]


def _bound(name: str, body: Mapping[str, Any]) -> Bound:
    spec = body["spec"]
    scope = spec.get("scope", {})
    about = scope.get("object")
    return Bound(
        role=spec["role"],
        subjects=frozenset((one["kind"], one["name"]) for one in spec.get("subjects", ()) if not _going(body)),
        place=place_bound(name, scope),
        about=(about["kind"], about["name"]) if about else None,
    )
