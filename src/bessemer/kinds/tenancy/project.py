"""Project: where a tenant's things live; it is the namespace of the API and is named ``TENANT--PROJECT``.

Invariants: the name says the tenant, and together they have at most 63 characters, so names of two tenants cannot
collide; a project goes only when nothing is left in it. What is in it is deleted by whoever made it; only what is no
more than written down (`PAPERS`) goes with the project, once all else has gone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Literal

import orjson
from pydantic import Field

from bessemer.core.bounds import Budget, Limits
from bessemer.core.errors import Cause, NotFound
from bessemer.core.ports import CONTROLLER, Scope
from bessemer.core.quota import Quota
from bessemer.core.resource import (
    ALL,
    READ,
    SEPARATOR,
    ApiModel,
    Change,
    Column,
    Done,
    Key,
    Kind,
    Outcome,
    Resource,
    Role,
    Status,
    Wait,
    tenant_of,
)
from bessemer.core.values import nothing
from bessemer.kinds.context import Context
from bessemer.kinds.fields import ShortText, at, label_problems, quota_problems
from bessemer.kinds.tenancy.quota import LOOK_SECONDS, bound
from bessemer.kinds.tenancy.spend import tell

DEADLINES: Mapping[str, float] = {"Pending": 600.0, "Terminating": 600.0}

_SHOWN = 5
"""Names of one kind that a message spells out."""

_READERS: Sequence[Role] = ("admin", "auditor", "tenant-admin", "member", "reader", "billing-reader")

_EMPTY_IT = "Delete what is left in it: a project takes no workload with it."

PAPERS = ("ConfigMap", "Secret", "Lease")
"""What occupies nothing, and nobody misses once the project goes."""

_TORN_AT_ONCE = 100


class ProjectSpec(ApiModel):
    display_name: ShortText = Field("", description="What people call it; free text.")
    quota: Quota = Field(default_factory=Quota, description="Upper bounds within the tenant's own.")
    limits: Limits | None = Field(
        None,
        exclude_if=nothing,
        description="How much may be asked of endpoints at a time, by all keys of the project.",
    )
    budget: Budget | None = Field(
        None, exclude_if=nothing, description="What may be spent on tokens, by all keys of the project."
    )


class ProjectStatus(Status):
    phase: Literal["Pending", "Active", "Terminating"] = Field(
        "Pending", description="Pending until its tenant is there, Terminating until nothing is left in it."
    )
    message: str = Field("", description="What it waits for or what is wrong, in words; empty when all is well.")


class Project(Resource[ProjectSpec, ProjectStatus]):
    KIND = "Project"

    status: ProjectStatus = Field(default_factory=ProjectStatus)

    @property
    def tenant(self) -> str:
        return tenant_of(self.metadata.name)


def validate(new: Project, old: Project | None) -> Sequence[Cause]:
    """``TENANT--PROJECT``, neither part with ``--`` in it."""
    causes = [*quota_problems("spec.quota", new.spec.quota)]
    if old is None:
        name = new.metadata.name
        causes += label_problems(name, longest=63)
        parts = name.split(SEPARATOR)
        if len(parts) != 2 or not all(part and part.strip("-") == part for part in parts):
            causes.append(Cause("metadata.name", "must read TENANT--PROJECT, with -- in no other place"))
    return causes


async def reconcile(ctx: Context, project: Project) -> Outcome:
    """See that the tenant exists, and let the quota hold."""
    tenant = Key("Tenant", "", project.tenant)
    ctx.parts.note(project.key, (tenant,), waits=True)
    try:
        above = orjson.loads((await ctx.objects.get(tenant)).body)
    except NotFound:
        message = f"there is no Tenant {project.tenant}"
        remedy = f"Create Tenant {project.tenant}, or delete the project."
        status = project.status.model_copy(update={"phase": "Pending", "message": message})
        return Wait(reason="TenantNotFound", message=message, status=status, remedy=remedy)
    ctx.parts.note(project.key, (tenant,), waits=False)
    meta, again = project.metadata, None
    if project.spec.quota.spend_micro is not None:
        plan = above["spec"].get("pricePlan", "standard")
        upto = await ctx.ledger.last()
        again = await tell(ctx, f"project/{meta.name}", projects=[meta.uid], plan=plan, upto=upto)
    over = await bound(ctx, f"project/{meta.name}", quota=project.spec.quota, revision=meta.resource_version)
    status = project.status.model_copy(update={"phase": "Active", "message": over})
    if over:
        return Done(status=status, reason="OverQuota", message=over, again=again or LOOK_SECONDS)
    return Done(status=status, again=again)


async def finalize(ctx: Context, project: Project) -> Outcome:
    """Wait until nothing is left in it, and say what is."""
    left = await what_is_left(ctx, project.metadata.name)
    if left:
        message = "waits for what is left in it: " + "; ".join(left)
        status = project.status.model_copy(update={"phase": "Terminating", "message": message})
        return Wait(reason="NotEmpty", message=message, status=status, again=5.0, remedy=_EMPTY_IT)
    if await _papers_left(ctx, project.metadata.name):
        message = "its ConfigMaps, Secrets and Leases are being deleted"
        status = project.status.model_copy(update={"phase": "Terminating", "message": message})
        remedy = "Let those who put finalizers on them take these away."
        return Wait(reason="PapersLeft", message=message, status=status, again=1.0, remedy=remedy)
    meta = project.metadata
    await ctx.capacity.set_quota(f"project/{meta.name}", Quota(), revision=meta.resource_version)
    ctx.parts.forget(project.key)
    return Done(status=project.status.model_copy(update={"phase": "Terminating", "message": ""}))


async def _papers_left(ctx: Context, namespace: str) -> bool:
    """Delete what is written down, some at a time; whether there was anything."""
    found = False
    for kind in PAPERS:
        page = await ctx.objects.list(Scope(kind=kind, namespace=namespace), limit=_TORN_AT_ONCE)
        for stored in page.items:
            found = True
            try:
                await ctx.objects.delete(stored.key, CONTROLLER, uid=stored.uid)
            except NotFound:
                continue
    return found


async def what_is_left(ctx: Context, namespace: str) -> Sequence[str]:
    """A phrase for each kind with objects in the project: ``2 instances (a, b)``. Events are no reason to stay."""
    from bessemer.kinds import KINDS  # the table of contents holds this very kind

    phrases = []
    for kind in KINDS:
        if not kind.namespaced or kind.name in ("Event", *PAPERS):
            continue
        page = await ctx.objects.list(Scope(kind=kind.name, namespace=namespace), limit=_SHOWN)
        if page.items:
            count = len(page.items) + page.remaining
            names = ", ".join(stored.key.name for stored in page.items) + (", …" if page.remaining else "")
            phrases.append(f"{count} {kind.plural if count > 1 else kind.singular} ({names})")
    return phrases


async def wake_by_tenant(ctx: Context, change: Change) -> AsyncIterator[Key]:
    """A tenant that comes frees the projects that wait for it."""
    if change.type == "ADDED":
        for key in ctx.parts.concerned(change.key, waiting=True):
            yield key


KIND: Kind[Context, Project] = Kind(
    resource=Project,
    plural="projects",
    namespaced=False,
    short_names=("proj",),
    rights={
        "admin": ALL,
        "auditor": READ,
        "tenant-admin": ALL,
        "member": READ,
        "reader": READ,
        "billing-reader": READ,
    },
    below={part: dict.fromkeys(_READERS, ("get",)) for part in ("invoice", "ledger", "reconcile", "usage", "use")},
    columns=(
        Column(name="Tenant", value=lambda body: tenant_of(str(at("metadata", "name", default="")(body)))),
        Column(name="Phase", value=at("status", "phase")),
        Column(name="Display", value=at("spec", "displayName"), wide=True),
        Column(name="Message", value=at("status", "message"), wide=True),
    ),
    validate=validate,
    reconcile=reconcile,
    finalize=finalize,
    wakes={"Tenant": wake_by_tenant},
    deadlines=DEADLINES,
)
