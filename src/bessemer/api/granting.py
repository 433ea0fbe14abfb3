"""Nobody grants more than they hold: what a write grants anew is held against its writer's own grants, as exact sets.

Looked at are Roles, RoleBindings, a Tenant's members and a User's ``admin``, in the body as it would be stored: so it
is the same for a create, a replacement, a patch, an apply or a dry run. What was granted already may stay, and the
write is then pinned to the revision that granted it: what another has withdrawn meanwhile does not come back. Each Role
and binding is owned by the narrowest thing that it is about; the server says so, and nobody else. Ways to sign in, and
who a User is to an issuer, could make anybody an administrator: only one of the platform writes those.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from bessemer.api.access import Target
from bessemer.api.errors import invalid
from bessemer.api.names import show
from bessemer.api.state import Call
from bessemer.core.errors import Cause, Forbidden, Invalid, NotFound
from bessemer.core.resource import OwnerReference
from bessemer.kinds.tenancy.rights import NOTHING, Cell, Grant, Place, Rights, beyond, missing, place_of
from bessemer.kinds.tenancy.rolebinding import place_bound

Body = dict[str, Any]
KINDS = frozenset(["Role", "RoleBinding", "Tenant", "User"])
WAYS_IN = frozenset(["IdentityProvider", "SignInPolicy"])
_TOLD = 12
"""Kinds, and parts of them, that a refusal names."""


async def grant(call: Call, target: Target, *, body: Body, old: Body | None) -> None:
    """Raises Forbidden for what its writer does not hold, Invalid for what is not there to be bound. Puts the owner
    into the body of what has one."""
    kind = target.resource.stored
    if kind in WAYS_IN or (kind == "User" and _identity(body) != _identity(old)):
        require_administrator(call, target)
    if kind not in KINDS:
        return
    if old is not None and not body["metadata"].get("resourceVersion"):
        body["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"]
    if kind in ("Role", "RoleBinding"):
        await _own(call, target, body=body, old=old)
    access, book = call.state.access, call.state.directory.book
    held = access.grants(call.who)
    lacking = sorted(
        {cell for one in _granted(call, target, body=body, old=old) for cell in missing(one, held, book=book)}
    )
    if lacking:
        raise _refused(call, target, lacking=lacking)


def require_administrator(call: Call, target: Target) -> None:
    """Raises Forbidden for whoever does not administer the platform, and so for each credential."""
    if not call.state.access.administers(call.who):
        part = "/identity" if target.resource.stored == "User" else ""
        raise Forbidden(
            f'{target.resource.plural}.{target.resource.group}{part} "{target.name}" is forbidden: User '
            f'"{call.who.name}" may not say who signs in: an administrator of the platform does, in person'
        )


def _identity(body: Body | None) -> Any:
    return body["spec"].get("identity") if body is not None else None


def _granted(call: Call, target: Target, *, body: Body, old: Body | None) -> Iterator[Grant]:
    """What is granted that was not."""
    kind, directory = target.resource.stored, call.state.directory
    spec, before = body["spec"], old["spec"] if old is not None else {}
    if kind == "Role":
        rights = beyond(directory.book.rights(spec), directory.book.rights(before))
        yield Grant(rights, place_of(kind, "", name=target.name))
    elif kind == "Tenant":
        members, were = _members(spec), _members(before)
        for role in {role for _, role in members - were}:
            yield Grant(directory.rights(role) or NOTHING, Place(target.name))
    elif kind == "User":
        if _powerful(spec) and not _powerful(before):
            yield Grant(directory.book.built_in["admin"])
    elif _anew(spec, before):
        yield directory.book.grant(
            _rights(call, target, spec=spec), place_bound(target.name, _scope(spec)), about=_about(spec)
        )


def _rights(call: Call, target: Target, *, spec: Mapping[str, Any]) -> Rights:
    rights = call.state.directory.rights(spec["role"])
    if rights is None:
        raise _not_there(target, "spec.role", what=f"Role {spec['role']}")
    return rights


def _anew(spec: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    """Whether a binding gives anybody anything that it did not."""
    if not before or (spec["role"], _scope(spec)) != (before["role"], _scope(before)):
        return True
    return not _subjects(spec) <= _subjects(before)


def _members(spec: Mapping[str, Any]) -> set[tuple[str, str]]:
    return {(member["user"], member.get("role", "member")) for member in spec.get("members", ())}


def _subjects(spec: Mapping[str, Any]) -> set[tuple[str, str]]:
    return {(subject["kind"], subject["name"]) for subject in spec.get("subjects", ())}


def _powerful(spec: Mapping[str, Any]) -> bool:
    return bool(spec.get("admin")) and not spec.get("disabled")


def _scope(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    return spec.get("scope") or {}


def _about(spec: Mapping[str, Any]) -> tuple[str, str] | None:
    about = _scope(spec).get("object")
    return (about["kind"], about["name"]) if about else None


async def _own(call: Call, target: Target, *, body: Body, old: Body | None) -> None:
    """Let it go with what it is about. Raises Invalid where that is not there, or where another owner is named."""
    owner = await _owner(call, target, spec=body["spec"])
    was = old["metadata"].get("ownerReferences", []) if old is not None else []
    said = body["metadata"].get("ownerReferences", [])
    if any(reference not in [owner, *was] for reference in said):
        words = "Forbidden: what it is about owns it, and nothing else does"
        raise invalid(target.subject, [Cause("metadata.ownerReferences", words, "FieldValueForbidden")])
    if owner is None:
        body["metadata"].pop("ownerReferences", None)
    else:
        body["metadata"]["ownerReferences"] = [owner]


async def _owner(call: Call, target: Target, *, spec: Mapping[str, Any]) -> dict[str, Any] | None:
    """The object, the project or the tenant; None for what holds everywhere."""
    of_role = target.resource.stored == "Role"
    place = place_of("Role", "", name=target.name) if of_role else place_bound(target.name, _scope(spec))
    about = None if of_role else _about(spec)
    resources = call.state.resources
    if about is not None:
        kind, name, path = *about, "spec.scope.object"
    elif place.project:
        kind, name, path = "Project", place.project, "spec.scope.project"
    elif place.tenant:
        kind, name, path = "Tenant", place.tenant, "metadata.name"
    else:
        return None
    shown = resources.of_kind(kind)
    if shown is None:
        raise _not_there(target, path, what=f"{kind} {name}")
    owner = Target(shown, place.project if shown.namespaced else "", name)
    try:
        await call.state.access.require(call.who, "get", on=owner)
        found = await call.state.ports.objects.get(owner.key)
    except (NotFound, Forbidden) as error:
        raise _not_there(target, path, what=f"{kind} {name}") from error
    api_version = orjson.loads(found.body)["apiVersion"]
    return OwnerReference(api_version=api_version, kind=kind, name=name, uid=found.uid).dump()


def _not_there(target: Target, path: str, *, what: str) -> Invalid:
    return invalid(target.subject, [Cause(path, f"Invalid value: {show(what)}: not found")])


def _refused(call: Call, target: Target, *, lacking: list[Cell]) -> Forbidden:
    verbs: dict[str, list[str]] = {}
    for cell in lacking:
        verbs.setdefault(cell.about, []).append(cell.verb)
    told = "; ".join(f"{', '.join(verbs[about])} {about}" for about in list(verbs)[:_TOLD])
    more = f" and upon {len(verbs) - _TOLD} more" if len(verbs) > _TOLD else ""
    resource = target.resource
    return Forbidden(
        f'{resource.plural}.{resource.group} "{target.name}" is forbidden: User "{call.who.name}" may not grant rights '
        f"that they do not hold there themselves: {told}{more}"
    )
