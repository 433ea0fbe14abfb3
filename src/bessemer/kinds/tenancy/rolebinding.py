"""RoleBinding: who holds a role, and where: everywhere, in a tenant, in a project, or upon one object.

Invariants: a tenant's own is named ``TENANT--NAME``, holds within that tenant, and names a built-in role or a Role of
it; it goes with the narrowest thing that it is about, so that the next of a name inherits nothing; nobody writes one
that gives more than they hold there (the api sees to both). It has no control side. It makes nobody: whom it names need
not be there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import orjson
from pydantic import Field

from bessemer.core.errors import Cause, NotFound
from bessemer.core.ports import CONTROLLER, Scope
from bessemer.core.resource import ALL, READ, ApiModel, Column, Kind, Resource, Status, keyed_by, tenant_of
from bessemer.kinds.context import Context
from bessemer.kinds.fields import Name, Names, ShortText, at
from bessemer.kinds.tenancy.rights import BUILT_IN, SYSTEM, Place
from bessemer.kinds.tenancy.role import name_problems

SubjectKind = Literal["User", "Group", "ApplicationCredential"]


class RoleSubject(ApiModel):
    """Somebody, or something that asks."""

    kind: SubjectKind = Field(description="User, Group (as its issuer's prefix has it) or ApplicationCredential.")
    name: ShortText = Field(min_length=1, description="Its name.")


class BoundObject(ApiModel):
    """One object, of the scope's project where its kind has one."""

    kind: ShortText = Field(description="Its kind, as Instance.")
    name: Name = Field(description="Its name.")


class BindingScope(ApiModel):
    """Where the role holds: at the narrowest that is said."""

    tenant: Annotated[Name, Names("Tenant")] | None = Field(
        None, description="A tenant; of a tenant's own binding that tenant, also where unsaid."
    )
    project: Annotated[Name, Names("Project")] | None = Field(None, description="A project, as TENANT--PROJECT.")
    object: BoundObject | None = Field(None, description="One object, and what may be done with it by its name.")


class RoleBindingSpec(ApiModel):
    role: Annotated[Name, Names("Role")] = Field(description="A built-in role, or the name of a Role.")
    subjects: list[RoleSubject] = Field(
        default_factory=list,
        max_length=1000,
        description="Who holds it.",
        json_schema_extra=keyed_by("kind", "name"),
    )
    scope: BindingScope = Field(
        default_factory=BindingScope, description="Where; when empty the binding's tenant, or everywhere."
    )


class RoleBindingStatus(Status):
    pass


class RoleBinding(Resource[RoleBindingSpec, RoleBindingStatus]):
    KIND = "RoleBinding"

    status: RoleBindingStatus = Field(default_factory=RoleBindingStatus)


def place_bound(name: str, scope: Mapping[str, Any]) -> Place:
    """Where the rights of a binding of that name and scope (as JSON) hold; of an object, its project."""
    project = scope.get("project") or ""
    return Place(tenant_of(project) or scope.get("tenant") or tenant_of(name), project)


def validate(new: RoleBinding, old: RoleBinding | None) -> Sequence[Cause]:
    """A place that is one, within the binding's tenant; a role that can be bound there; nobody twice."""
    name, spec = new.metadata.name, new.spec
    causes = [*name_problems(name)] if old is None else []
    if spec.role in SYSTEM:
        causes.append(Cause("spec.role", f"{spec.role} is held by whom it is about, and cannot be bound"))
    elif spec.role not in BUILT_IN and tenant_of(spec.role) != tenant_of(name):
        causes.append(Cause("spec.role", "must be built in, or of the same tenant as the binding's name"))
    seen = set()
    for index, subject in enumerate(spec.subjects):
        if (subject.kind, subject.name) in seen:
            causes.append(Cause(f"spec.subjects[{index}]", f"{subject.kind} {subject.name} stands here twice"))
        if subject.name.startswith("system:"):
            causes.append(Cause(f"spec.subjects[{index}].name", "what is the system's cannot be bound"))
        seen.add((subject.kind, subject.name))
    return [*causes, *_scope_problems(name, spec.scope)]


def _scope_problems(name: str, scope: BindingScope) -> Iterator[Cause]:
    from bessemer.kinds import KINDS  # the table of contents holds this very kind

    own, project = tenant_of(name), scope.project or ""
    if project and not tenant_of(project):
        yield Cause("spec.scope.project", "must read TENANT--PROJECT")
    tenants = {tenant for tenant in (own, scope.tenant, tenant_of(project)) if tenant}
    if len(tenants) > 1:
        field = "tenant" if own and scope.tenant not in (None, own) else "project"
        yield Cause(f"spec.scope.{field}", f"must be of tenant {own or scope.tenant}")
    if scope.object is None:
        return
    kind = next((kind for kind in KINDS if kind.name == scope.object.kind), None)
    if kind is None:
        yield Cause("spec.scope.object.kind", f"there is no kind {scope.object.kind}", "FieldValueNotSupported")
    elif kind.namespaced != bool(project):
        yield Cause("spec.scope.project", "Required value" if kind.namespaced else f"a {kind.name} is in no project")
    elif not kind.namespaced and (own or scope.tenant):
        yield Cause("spec.scope.object", f"a {kind.name} is in no tenant: only the platform binds it, and names none")


async def leave_bindings(ctx: Context, kind: SubjectKind, *, name: str) -> None:
    """Take somebody out of every binding. Raises Conflict where one changes meanwhile: the loop comes again."""
    page = await ctx.objects.list(Scope(kind="RoleBinding"))
    for stored in page.items:
        body = orjson.loads(stored.body)
        subjects = body["spec"].get("subjects", [])
        left = [one for one in subjects if (one.get("kind", "User"), one["name"]) != (kind, name)]
        if len(left) < len(subjects):
            try:
                await ctx.objects.replace({**body, "spec": {**body["spec"], "subjects": left}}, CONTROLLER)
            except NotFound:
                continue


def _who(body: Mapping[str, Any]) -> str:
    said = [(one.get("kind", "User"), one.get("name", "")) for one in at("spec", "subjects", default=())(body)]
    return ", ".join(name if kind == "User" else f"{kind}:{name}" for kind, name in said)


def where(body: Mapping[str, Any]) -> str:
    """``*``, ``acme``, ``acme--lab``, ``acme--lab/Instance/vm``."""
    scope = at("spec", "scope", default={})(body)
    place = place_bound(str(at("metadata", "name", default="")(body)), scope)
    about = scope.get("object")
    parts = [place.project or place.tenant, *([about.get("kind", ""), about.get("name", "")] if about else [])]
    return "/".join(filter(None, parts)) or "*"


KIND: Kind[Context, RoleBinding] = Kind(
    resource=RoleBinding,
    plural="rolebindings",
    namespaced=False,
    short_names=("rb",),
    rights={"admin": ALL, "auditor": READ, "tenant-admin": ALL, "member": READ, "reader": READ},
    columns=(
        Column(name="Role", value=at("spec", "role")),
        Column(name="Where", value=where),
        Column(name="Who", value=_who),
    ),
    validate=validate,
)
