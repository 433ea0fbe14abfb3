"""Tenant: one customer of the factory, a virtual data centre. Its name is the first half of each project's name.

Invariants: a name never contains ``--``; the colour is given once and kept; a quota below present use stops new
claims and touches nothing that runs; a tenant goes only after its projects; what it may tolerate is said by the
platform's administrator, so that a taint is a wall. It is not a login: people are Users, joined here as members.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from bessemer.core.errors import Cause
from bessemer.core.ports import Scope
from bessemer.core.resource import (
    ALL,
    READ,
    SEPARATOR,
    ApiModel,
    Column,
    Done,
    Key,
    Kind,
    Outcome,
    Resource,
    Status,
    Wait,
    keyed_by,
    tenant_of,
)
from bessemer.core.values import Quota, Toleration
from bessemer.kinds.context import Context
from bessemer.kinds.fields import Name, ShortText, at, duplicates, label_problems, quota_problems, taint_problems
from bessemer.kinds.parts import made_of
from bessemer.kinds.tenancy.quota import LOOK_SECONDS, bound

COLOURS = range(1, 11)

DEADLINES: Mapping[str, float] = {"Pending": 120.0, "Terminating": 600.0}

_END_THEM = "Delete its projects, and before them what is in them."

MemberRole = Literal["tenant-admin", "member", "reader"]


class Member(ApiModel):
    """A user's part in a tenant."""

    user: Name = Field(description="Name of a User.")
    role: MemberRole = Field(
        "member", description="What they may: reader reads, member writes, tenant-admin makes projects too."
    )


class TenantSpec(ApiModel):
    display_name: ShortText = Field("", description="What people call it; free text.")
    quota: Quota = Field(default_factory=Quota, description="Upper bounds over all projects of the tenant.")
    members: list[Member] = Field(
        default_factory=list,
        max_length=10_000,
        description="Who belongs to it.",
        json_schema_extra=keyed_by("user"),
    )
    price_plan: Name = Field("standard", description="Name of the PricePlan by which it is billed.")
    tolerations: list[Toleration] = Field(
        default_factory=list,
        max_length=64,
        description="Taints of hosts that its workloads may bear; on hosts with any other nothing of it lands.",
        json_schema_extra=keyed_by("key"),
    )


class TenantStatus(Status):
    phase: Literal["Pending", "Active", "Terminating"] = Field(
        "Pending", description="Where it is in its life, in one word."
    )
    colour: int = Field(0, description="1 to 10: the colour on maps, given once.")
    message: str = Field("", description="What it waits for or what is wrong, in words; empty when all is well.")


class Tenant(Resource[TenantSpec, TenantStatus]):
    KIND = "Tenant"

    status: TenantStatus = Field(default_factory=TenantStatus)


def bearable(tenant: Mapping[str, Any]) -> frozenset[str]:
    """Keys of the taints that workloads of a tenant (its body as JSON) may bear."""
    return frozenset(toleration["key"] for toleration in tenant.get("spec", {}).get("tolerations", ()))


def validate(new: Tenant, old: Tenant | None) -> Sequence[Cause]:
    """The name leaves room for a project's, and nobody is a member twice."""
    causes = [*quota_problems("spec.quota", new.spec.quota)]
    keys = [toleration.key for toleration in new.spec.tolerations]
    causes += duplicates("spec.tolerations", keys, field="key")
    causes += taint_problems("spec.tolerations", keys)
    causes += duplicates("spec.members", [member.user for member in new.spec.members], field="user")
    if old is None:
        causes += label_problems(new.metadata.name, longest=60)
        if SEPARATOR in new.metadata.name:
            causes.append(Cause("metadata.name", f"must not contain {SEPARATOR!r}: it parts tenant and project"))
    return causes


async def reconcile(ctx: Context, tenant: Tenant) -> Outcome:
    """Give it a colour once, and let the quota hold."""
    ctx.parts.note(tenant.key, (Key("PricePlan", "", tenant.spec.price_plan),), waits=False)
    colour = tenant.status.colour
    if not colour:
        page = await ctx.objects.list(Scope(kind="Tenant"))
        colour = colour_for(tenant.metadata.name, [Tenant.load(stored.body) for stored in page.items])
    meta = tenant.metadata
    over = await bound(ctx, f"tenant/{meta.name}", quota=tenant.spec.quota, revision=meta.resource_version)
    status = tenant.status.model_copy(update={"phase": "Active", "colour": colour, "message": over})
    return Done(status=status, reason="OverQuota", message=over, again=LOOK_SECONDS) if over else Done(status=status)


def colour_for(name: str, tenants: Sequence[Tenant]) -> int:
    """The smallest colour that fewest tenants have.

    Those without one are served in the order of their creation, so that tenants that are looked at at the same time
    find different colours whoever looks first.
    """
    used = Counter(dict.fromkeys(COLOURS, 0))
    used.update(tenant.status.colour for tenant in tenants if tenant.status.colour)
    waiting = sorted(
        (tenant.metadata.creation_timestamp or "", tenant.metadata.name)
        for tenant in tenants
        if not tenant.status.colour
    )
    for _, waiter in [*waiting, ("", name)]:
        colour = min(COLOURS, key=lambda c: (used[c], c))
        if waiter == name:
            return colour
        used[colour] += 1
    return COLOURS[0]


async def finalize(ctx: Context, tenant: Tenant) -> Outcome:
    """Wait for its projects to go, then forget its quota."""
    name = tenant.metadata.name
    projects = await made_of(
        ctx.objects, ctx.parts, part=tenant.key, kind="Project", still=lambda stored: tenant_of(stored.key.name) == name
    )
    if projects:
        names = ", ".join(stored.key.name for stored in projects[:5])
        message = f"waits for {len(projects)} project{'s'[: len(projects) > 1]} to be deleted: {names}"
        status = tenant.status.model_copy(update={"phase": "Terminating", "message": message})
        return Wait(reason="ProjectsRemain", message=message, status=status, remedy=_END_THEM)
    await ctx.capacity.set_quota(f"tenant/{name}", Quota(), revision=tenant.metadata.resource_version)
    ctx.parts.forget(tenant.key)
    return Done(status=tenant.status.model_copy(update={"phase": "Terminating", "message": ""}))


KIND: Kind[Context, Tenant] = Kind(
    resource=Tenant,
    plural="tenants",
    namespaced=False,
    short_names=("tn",),
    rights={
        "admin": ALL,
        "auditor": READ,
        "tenant-admin": READ,
        "member": READ,
        "reader": READ,
        "billing-reader": READ,
    },
    columns=(
        Column(name="Phase", value=at("status", "phase")),
        Column(name="Members", value=lambda body: len(at("spec", "members", default=())(body)), type="integer"),
        Column(name="Plan", value=at("spec", "pricePlan", default="standard")),
        Column(name="Display", value=at("spec", "displayName"), wide=True),
        Column(name="Colour", value=at("status", "colour"), type="integer", wide=True),
    ),
    validate=validate,
    reconcile=reconcile,
    finalize=finalize,
    deadlines=DEADLINES,
)
