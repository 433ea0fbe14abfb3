"""Members: who holds which role where, of a project and its tenant: people, groups and credentials, however given.

A role is given by a RoleBinding or stands in the Tenant. Who may change it is the api's to say: it refuses whoever
would grant more than they hold, and the page shows its words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bessemer.core.resource import tenant_of
from bessemer.portal import code, words
from bessemer.portal.desk import Desk
from bessemer.portal.forms import Said
from bessemer.portal.live import Page, Part
from bessemer.portal.pages.lists import Listed, caveats
from bessemer.portal.pages.shell import EVERYTHING, Here, page, within
from bessemer.portal.parts import Act, Cell, MemberRow, Row

ROLES = ("tenant-admin", "member", "reader", "billing-reader")
"""The built-in ones that are of a tenant's people, widest first."""

_LEAD = "Nobody grants more than they hold. A change holds at once, in sessions that are open, too."


@dataclass(slots=True)
class Held:
    """What an open page was last told: bindings, the tenants whose members are shown, and the tenant's own roles."""

    bindings: Listed
    tenants: Listed
    roles: Listed


def build(desk: Desk, scope: str, *, held: Held, said: Said) -> Page:
    """Who is in, and the form by which somebody comes in. Raises NotFound once the project is gone."""
    within(desk, scope)
    project = "" if scope == EVERYTHING else scope
    here = Here(
        section="members",
        title="Members",
        scope=scope,
        crumbs=((words.place(project) if project else "Everything", ""), ("Members", "")),
        code=code.list_code("rolebindings", "", namespaced=False),
        request=code.path("rolebindings"),
    )
    tenant = tenant_of(project)
    grants = desk.role(project) in ("admin", "tenant-admin") if project else False
    own = (body["metadata"]["name"] for body in held.roles.bodies)
    roles = (*ROLES, *(role for role in own if tenant_of(role) == tenant))
    rows: list[Part] = list(_of_tenants(desk, held, project=project))
    rows += _of_bindings(held, project=project, roles=roles if grants else ())
    rows += caveats(held.tenants, what="the members that a tenant names", plural="tenants")
    rows += caveats(held.bindings, what="the roles that a binding gives", plural="rolebindings")
    return page(
        desk,
        here,
        template="members.html",
        lists={"rows": rows or [Row("row-none", (Cell("Nobody holds a role here.", "empty"),))]},
        heads=(("Who", ""), ("Role", ""), ("Where", "lo"), ("Given by", "lo"), ("", "acts")),
        lead=_LEAD,
        said=said,
        roles=roles,
        more_roles=held.roles.more,
        tenant=tenant,
        makes=grants,
    )


def _of_tenants(desk: Desk, held: Held, *, project: str) -> Iterator[MemberRow]:
    """Members by the Tenant itself, which an administrator of the platform writes."""
    for body in held.tenants.bodies:
        name = body["metadata"]["name"]
        changes = desk.me.admin and bool(project)
        for member in body.get("spec", {}).get("members", ()):
            yield MemberRow(
                f"row-{name}-{_slug(member['user'])}",
                who=member["user"],
                kind="User",
                role=member.get("role", "member"),
                where=f"tenant {name}",
                source=f"tenant {name}",
                roles=ROLES[:3] if changes else (),
                act=_act(project, f"tenant/{name}/User/{member['user']}", who=member["user"]) if changes else None,
            )


def _of_bindings(held: Held, *, project: str, roles: tuple[str, ...]) -> Iterator[MemberRow]:
    for body in held.bindings.bodies:
        if not about(body, project=project):
            continue
        name, spec = body["metadata"]["name"], body.get("spec", {})
        own = tenant_of(name) == tenant_of(project)
        for subject in spec.get("subjects", ()):
            kind, who = subject["kind"], subject["name"]
            yield MemberRow(
                f"row-{name}-{kind}-{_slug(who)}",
                who=who,
                kind=kind,
                role=spec.get("role", ""),
                where=where(name, spec.get("scope", {})),
                source=f"binding {name}",
                roles=roles if own else (),
                more_roles=held.roles.more,
                act=_act(project, f"binding/{name}/{kind}/{who}", who=who) if own and roles else None,
            )


def about(binding: Mapping[str, Any], *, project: str) -> bool:
    """Whether a binding has to do with the project; with everything, each one has."""
    name, scope = binding["metadata"]["name"], binding.get("spec", {}).get("scope", {})
    if not project:
        return True
    if scope.get("project"):
        return bool(scope["project"] == project)
    return (scope.get("tenant") or tenant_of(name) or tenant_of(project)) == tenant_of(project)


def where(name: str, scope: Mapping[str, Any]) -> str:
    """Where a binding's role holds, in words."""
    if scope.get("object"):
        return f"{scope['object']['kind']} {scope['object']['name']}"
    if scope.get("project"):
        return words.place(scope["project"])
    tenant = scope.get("tenant") or tenant_of(name)
    return f"tenant {tenant}" if tenant else "everywhere"


def _act(project: str, which: str, *, who: str) -> Act:
    return Act(f"/in/{project}/members", "remove", which, "Remove", ask=f"Take the role from {who}?")


def _slug(name: str) -> str:
    """An id's part: what is no letter or digit, by its number."""
    return "".join(one if one.isascii() and one.isalnum() else f"-{ord(one):x}-" for one in name)
