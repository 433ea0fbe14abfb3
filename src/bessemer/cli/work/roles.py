"""Roles and bindings, for the commands of `cli.roles`: read, judged here as the server judges, and written there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import typer

from bessemer.cli import render
from bessemer.cli.connection import find_kind
from bessemer.client import Client, an_object
from bessemer.core.errors import Forbidden, Invalid, NotFound
from bessemer.core.ports import Scope
from bessemer.core.resource import SEPARATOR, Key, tenant_of
from bessemer.kinds import KINDS
from bessemer.kinds.tenancy import role as custom
from bessemer.kinds.tenancy import rolebinding
from bessemer.kinds.tenancy.rights import (
    BUILT_IN,
    Cell,
    Grant,
    Names,
    Place,
    Rulebook,
    place_of,
    place_of_project,
)

Body = dict[str, Any]
_NAME_MAX = 63
_FOR: Mapping[str, str] = {
    "admin": "administers the platform",
    "operator": "runs hosts, and what they offer; sees nothing of tenants",
    "auditor": "reads every object, no logs and no consoles",
    "tenant-admin": "a member who makes projects, roles and bindings of the tenant",
    "member": "a reader who makes and changes workloads and keys",
    "reader": "reads objects and logs",
    "billing-reader": "reads what it costs",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """A tenant, a project, or one object (``KIND/NAME``); everywhere where nothing is said."""

    tenant: str = ""
    project: str = ""
    on: str = ""

    @property
    def owner(self) -> str:
        """The tenant whose binding it would be."""
        return self.tenant or tenant_of(self.project)

    def scope(self) -> Body:
        """As a binding says it, the tenant apart. Raises Invalid."""
        found: Body = {"project": self.project} if self.project else {}
        if self.on:
            word, slash, name = self.on.partition("/")
            if not slash or not name:
                raise Invalid("say which object as KIND/NAME")
            found["object"] = {"kind": find_kind(word).name, "name": name}
        return found


@dataclass(frozen=True, slots=True)
class Known:
    """What the asker may see of who holds what."""

    custom: Sequence[Body] = ()
    bindings: Sequence[Body] = ()
    tenants: Sequence[Body] = ()
    users: Sequence[Body] = ()
    hidden: list[str] = field(default_factory=list)


async def known(client: Client) -> Known:
    """All that may be listed; ``hidden`` names the kinds that may not."""
    found: dict[str, list[Body]] = {}
    hidden = []
    for kind in ("Role", "RoleBinding", "Tenant", "User"):
        try:
            page = await client.list(Scope(kind=kind))
        except Forbidden:
            hidden.append(kind)
            page = None
        found[kind] = [orjson.loads(stored.body) for stored in page.items] if page else []
    return Known(found["Role"], found["RoleBinding"], found["Tenant"], found["User"], hidden)


def described(found: Known, *, within: int = 0) -> str:
    """A line per role: what it is for, or what it gives."""
    (gives,) = (column for column in custom.KIND.columns if column.name == "Gives")
    rows = [[name, "built in", words] for name, words in _FOR.items()]
    rows += [[body["metadata"]["name"], _owner(body), str(gives.value(body))] for body in found.custom]
    return render.columns(["ROLE", "OF", "GIVES"], rows, within=within)


async def grant(client: Client, role: str, *, who: str, where: Where) -> str:
    """Add somebody to the binding of that role there, which is made where there is none; says what was done."""
    role, subject, scope = _role(role, where), _subject(who), where.scope()
    name = binding_name(role, where)
    try:
        body = orjson.loads((await client.get(Key("RoleBinding", "", name))).body)
    except NotFound:
        await client.create(
            an_object(Key("RoleBinding", "", name), {"role": role, "subjects": [subject], "scope": scope})
        )
        return f"rolebinding/{name} created"
    spec = body["spec"]
    if spec["role"] != role or _about(body) != (_place(where), scope.get("object")):
        raise Invalid(f"rolebinding/{name} says something else: change it, or write one of your own")
    if subject in spec.get("subjects", []):
        return f"rolebinding/{name} unchanged"
    await _set(client, body, subjects=[*spec.get("subjects", []), subject])
    return f"rolebinding/{name} changed"


async def revoke(client: Client, role: str, *, who: str, where: Where) -> str:
    """Take somebody out of each binding of that role there; one that is left without anybody goes."""
    role, subject, scope = _role(role, where), _subject(who), where.scope()
    found = await known(client)
    done = []
    for body in found.bindings:
        name, spec = body["metadata"]["name"], body["spec"]
        subjects = spec.get("subjects", [])
        if spec["role"] != role or _about(body) != (_place(where), scope.get("object")) or subject not in subjects:
            continue
        left = [one for one in subjects if one != subject]
        if left:
            await _set(client, body, subjects=left)
        else:
            await client.delete(Key("RoleBinding", "", name))
        done.append(f"rolebinding/{name} {'changed' if left else 'deleted'}")
    if not done:
        raise NotFound(_not_held(found, role, subject=subject, where=where))
    return "\n".join(done)


async def who_can(client: Client, verb: str, *, what: str, name: str, project: str) -> list[dict[str, str]]:
    """Rows of who may, upon what names, and by which role of which object."""
    word, _, part = what.partition("/")
    kind = find_kind(word)
    if part and part not in kind.below:
        raise Invalid(f"{kind.plural} have these parts with rights of their own: {', '.join(kind.below) or 'none'}")
    found = await known(client)
    cell = Cell(kind.name, part, verb)
    place = place_of_project(project) if kind.namespaced else place_of(kind.name, "", name=name)
    if cell not in Rulebook(KINDS).cells:
        raise Invalid(f"nobody may {verb} {what}")
    rows = []
    for subject, role, by, held in _held(found):
        names = held.upon(cell, place)
        if names is None or (name in names if name else names):
            rows.append(_row(subject, role, by=by, names=names, where=_shown(held.place)))
    if "User" in found.hidden:
        typer.echo("The platform's administrators are not shown: you may not list users.", err=True)
    return rows


def table(rows: Sequence[Mapping[str, str]], *, within: int = 0) -> str:
    """The rows for people."""
    if not rows:
        return "Nobody, as far as you may see."
    head = ("who", "role", "where", "upon", "by")
    return render.columns(
        [word.upper() for word in head], [[row[word] for word in head] for row in rows], within=within
    )


def binding_name(role: str, where: Where) -> str:
    """The name under which grants of a role at a place are kept: ``acme--member-lab``."""
    words = [role.partition(SEPARATOR)[2] or role, where.project.partition(SEPARATOR)[2], where.on.replace("/", "-")]
    own = "-".join(filter(None, words)).lower().replace(".", "-")
    name = f"{where.owner}{SEPARATOR}{own}" if where.owner else own
    if len(name) > _NAME_MAX:
        name = f"{name[: _NAME_MAX - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return name


def _held(found: Known) -> Iterator[tuple[str, str, str, Grant]]:
    """Subject, role, what gives it, and the grant."""
    book = Rulebook(KINDS)
    rights = {**book.built_in, **{body["metadata"]["name"]: book.rights(body["spec"]) for body in found.custom}}
    for user in found.users:
        if user["spec"].get("admin"):
            yield user["metadata"]["name"], "admin", "its user", Grant(rights["admin"])
    for tenant in found.tenants:
        name = tenant["metadata"]["name"]
        for member in tenant["spec"].get("members", ()):
            role = member.get("role", "member")
            yield member["user"], role, f"tenant/{name}", book.grant(rights[role], Place(name))
    for body in found.bindings:
        name, spec = body["metadata"]["name"], body["spec"]
        scope = spec.get("scope", {})
        about = scope.get("object")
        if spec["role"] not in rights:
            continue
        place = rolebinding.place_bound(name, scope)
        held = book.grant(rights[spec["role"]], place, about=(about["kind"], about["name"]) if about else None)
        for subject in spec.get("subjects", ()):
            yield _word(subject), spec["role"], f"rolebinding/{name}", held


def _row(subject: str, role: str, *, by: str, names: Names, where: str) -> dict[str, str]:
    return {
        "who": subject,
        "role": role,
        "where": where,
        "upon": "all" if names is None else " ".join(sorted(names)),
        "by": by,
    }


def _not_held(found: Known, role: str, *, subject: Mapping[str, str], where: Where) -> str:
    """Why there was nothing to take away."""
    for tenant in found.tenants:
        member = {"user": subject["name"], "role": role}
        if tenant["metadata"]["name"] == where.owner and member in tenant["spec"].get("members", ()):
            return f"{_word(subject)} is a {role} by spec.members of tenant/{where.owner}: administrators change those"
    return f"{_word(subject)} holds {role} by no binding there (`bessemer get rolebindings`)"


async def _set(client: Client, body: Body, *, subjects: Sequence[Mapping[str, str]]) -> None:
    """Under the revision that was read, so that nobody who was taken out meanwhile comes back."""
    meta = body["metadata"]
    change = {"metadata": {"resourceVersion": meta["resourceVersion"]}, "spec": {"subjects": list(subjects)}}
    await client.patch(Key("RoleBinding", "", meta["name"]), change)


def _role(word: str, where: Where) -> str:
    """A built-in role, or a Role; a tenant's own may be said without its tenant."""
    if word in BUILT_IN or SEPARATOR in word or not where.owner:
        return word
    return f"{where.owner}{SEPARATOR}{word}"


def _subject(word: str) -> dict[str, str]:
    kind, colon, name = word.partition(":")
    if colon and kind in ("User", "Group", "ApplicationCredential") and name:
        return {"kind": kind, "name": name}
    return {"kind": "User", "name": word}


def _word(subject: Mapping[str, str]) -> str:
    return subject["name"] if subject["kind"] == "User" else f"{subject['kind']}:{subject['name']}"


def _about(body: Body) -> tuple[Place, Any]:
    """Where a binding holds, and upon which object."""
    scope = body["spec"].get("scope", {})
    return rolebinding.place_bound(body["metadata"]["name"], scope), scope.get("object")


def _place(where: Where) -> Place:
    return place_of_project(where.project) if where.project else Place(where.tenant)


def _shown(place: Place) -> str:
    return place.project or place.tenant or "*"


def _owner(body: Body) -> str:
    return tenant_of(body["metadata"]["name"]) or "platform"
