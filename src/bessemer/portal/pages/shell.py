"""What every page has around it: the navigation with its counts, the project switcher, the path, who one is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bessemer.core.errors import NotFound
from bessemer.core.resource import Kind, Role, tenant_of
from bessemer.kinds import KINDS
from bessemer.portal import words
from bessemer.portal.desk import Desk
from bessemer.portal.facts import EndpointFact, Fact, HostFact, InstanceFact, ProjectFact, TenantFact
from bessemer.portal.live import Page, Part
from bessemer.portal.parts import Count

EVERYTHING = "all"
"""The scope that is no project: all that one may see."""

SHELL_KINDS: tuple[type[Fact], ...] = (TenantFact, ProjectFact, InstanceFact, EndpointFact)
"""What the shell itself shows. An administrator's shell follows Host too."""

_PAGES = frozenset(["Host", "Instance", "Endpoint", "RoleBinding", "ApplicationCredential", "ApiKey"])
_TABLES = frozenset(["Model", "Image", "Flavor", "PricePlan", "Project", "Tenant", "User"])
_WITHIN = frozenset(["Claim", "Session", "Event"])
"""Kinds with a page of their own, with a place of their own for their table, and those seen on others' pages alone."""

_TENANTS: tuple[Role, ...] = ("anyone", "reader", "member", "tenant-admin")


@dataclass(frozen=True, slots=True, kw_only=True)
class Here:
    """Which page this is. ``scope`` is a project or `EVERYTHING`; ``crumbs`` are (text, href or "")."""

    section: str
    title: str
    scope: str = EVERYTHING
    crumbs: tuple[tuple[str, str], ...] = ()
    code: tuple[tuple[str, str], ...] = ()
    request: str = ""


@dataclass(frozen=True, slots=True)
class Link:
    """An entry of the navigation; ``count`` is the list that holds its figure, or ""."""

    section: str
    text: str
    href: str
    icon: str
    count: str = ""
    quick: bool = False


def page(desk: Desk, here: Here, *, template: str, lists: Mapping[str, Sequence[Part]], **fixed: Any) -> Page:
    """A page within its shell."""
    return Page(
        template=template,
        title=here.title,
        lists={**counts(desk, here.scope), **lists},
        fixed={"here": here, "shell": shell(desk, here), "now": desk.clock.now(), **fixed},
    )


def within(desk: Desk, scope: str) -> frozenset[str] | None:
    """The projects of a scope: None is every one that the session sees. Raises NotFound for another's."""
    if scope == EVERYTHING:
        return None
    if desk.find(ProjectFact, scope) is None:
        raise NotFound(f"there is no project {words.place(scope)}")
    return frozenset([scope])


def visible(desk: Desk, kind: type[Any], *, scope: str) -> list[Any]:
    """Objects of a kind within a scope."""
    projects = within(desk, scope)
    return [fact for fact in desk.all(kind) if projects is None or fact.project in projects]


def colours(desk: Desk) -> Mapping[str, int]:
    """Tenant → its colour, 1 to 10; 0 while it has none."""
    return {tenant.name: tenant.colour for tenant in desk.all(TenantFact)}


def in_place(fact: Fact, scope: str) -> str:
    """A name as a list shows it: with its project where several are shown."""
    return fact.name if scope != EVERYTHING else f"{words.place(fact.project)} / {fact.name}"


def href(fact: Fact) -> str:
    """The page of an Instance, Endpoint or Host."""
    if isinstance(fact, HostFact):
        return f"/hosts/{fact.name}"
    plural = "instances" if isinstance(fact, InstanceFact) else "endpoints"
    return f"/in/{fact.project}/{plural}/{fact.name}"


def counts(desk: Desk, scope: str) -> dict[str, Sequence[Part]]:
    """The figures of the navigation."""
    found: dict[str, Sequence[Part]] = {}
    kinds: tuple[tuple[str, type[Any]], ...] = (("instances", InstanceFact), ("endpoints", EndpointFact))
    for name, kind in kinds:
        facts = visible(desk, kind, scope=scope)
        found[f"count-{name}"] = [Count(f"n-{name}", len(facts), sum(bool(f.stuck) for f in facts))]
    if desk.me.admin:
        found["count-hosts"] = [Count("n-hosts", len(desk.all(HostFact)))]
    return found


def shell(desk: Desk, here: Here) -> Mapping[str, Any]:
    """What the template draws around a page."""
    me, scope = desk.me, here.scope
    everything = scope == EVERYTHING
    role = desk.role(scope) if not everything else "administrator" if me.admin else "all that you may see"
    return {
        "me": me,
        "initials": words.initials(me.name),
        "groups": groups(me.admin, scope),
        "scope": "Everything" if everything else words.place(scope),
        "role": {"admin": "administrator", "tenant-admin": "tenant administrator"}.get(role, role),
        "colour": 0 if everything else colours(desk).get(tenant_of(scope), 0),
        "switch": switch(desk, here),
    }


def switch(desk: Desk, here: Here) -> Sequence[tuple[str, str, int, bool]]:
    """Where the project switcher leads: (text, href, colour, whether it is here). It keeps the section where it can."""
    scoped = {"instances", "endpoints", "playground", "usage", "invoice", "keys", "quota", "members", "credentials"}
    scoped |= {f"kinds/{kind.plural}" for kind in others(KINDS, admin=desk.me.admin) if kind.namespaced}
    section = here.section if here.section in scoped else ""
    home = f"/in/{EVERYTHING}/{section}" if section else "/"
    found = [("Everything", home, 0, here.scope == EVERYTHING)]
    colour = colours(desk)
    for project in desk.all(ProjectFact):
        to = f"/in/{project.name}/{section or 'instances'}"
        found.append(
            (words.place(project.name), to, colour.get(tenant_of(project.name), 0), project.name == here.scope)
        )
    return found


def groups(admin: bool, scope: str) -> Sequence[tuple[str, Sequence[Link]]]:
    """The navigation: only what leads somewhere, and only what the role may use."""
    at = f"/in/{scope}"
    fleet = Link("fleet", "Fleet", "/fleet", "fleet", quick=True)
    overview = Link("overview", "Overview", "/overview", "fleet", quick=True)
    factory = [fleet, Link("hosts", "Hosts", "/hosts", "host", "count-hosts")]
    work = [
        Link("instances", "Instances", f"{at}/instances", "instance", "count-instances", quick=True),
        Link("endpoints", "Endpoints", f"{at}/endpoints", "endpoint", "count-endpoints", quick=True),
        Link("playground", "Playground", f"{at}/playground", "send"),
    ]
    data = [
        Link("models", "Models", "/models", "model"),
        Link("images", "Images", "/images", "image"),
        Link("flavors", "Flavors", "/flavors", "flavor"),
    ]
    money = [
        Link("usage", "Usage", f"{at}/usage", "fleet"),
        Link("invoice", "Invoices", f"{at}/invoice", "invoice", quick=True),
        Link("priceplans", "Prices", "/priceplans", "price"),
    ]
    tenancy = [
        Link("projects", "Projects", "/projects", "project"),
        Link("tenants", "Tenants", "/tenants", "project"),
        Link("members", "Members", f"{at}/members", "members"),
        Link("quota", "Quota", f"{at}/quota", "flavor"),
        Link("keys", "Keys", f"{at}/keys", "key"),
        Link("credentials", "Credentials", f"{at}/credentials", "key"),
    ]
    if admin:
        tenancy.append(Link("users", "Users", "/users", "user"))
    first = ("Factory", factory) if admin else ("Here", [overview])
    named = [first, ("Workloads", work), ("Data", data), ("Money", money), ("Tenancy", tenancy)]
    more = [_other(kind, at) for kind in others(KINDS, admin=admin)]
    return [*named, ("More", more)] if more else named


def others(kinds: Sequence[Kind[Any, Any]], *, admin: bool) -> Sequence[Kind[Any, Any]]:
    """Kinds that no page was made for: each gets the table of its columns, for whoever may list it."""
    roles = ("admin",) if admin else _TENANTS
    listed = [kind for kind in kinds if any("list" in kind.rights.get(role, ()) for role in roles)]
    return [kind for kind in listed if kind.name not in _PAGES | _TABLES | _WITHIN]


def _other(kind: Kind[Any, Any], at: str) -> Link:
    section = f"kinds/{kind.plural}"
    return Link(section, kind.plural.capitalize(), f"{at if kind.namespaced else ''}/{section}", "code")
