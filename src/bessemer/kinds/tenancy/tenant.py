"""Tenant: one customer of the factory, a virtual data centre. Its name is the first half of each project's name.

Invariants: a name never contains ``--``; the colour is given once and kept; a quota below present use stops new
claims and touches nothing that runs; a tenant goes only after its projects; what it may tolerate, where it may be and
what it may use is said by the platform's administrator. One that is suspended keeps what it has and gets nothing new;
one that is closed loses everything, in order, and is closed for good once its receipt is written. It is not a login:
people are Users, joined here as members.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from bessemer.core.asking import Toleration
from bessemer.core.bounds import Budget, Limits
from bessemer.core.errors import Cause
from bessemer.core.ports import Scope
from bessemer.core.quota import Quota
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
    values_apart,
)
from bessemer.core.values import nothing
from bessemer.kinds.context import Context
from bessemer.kinds.fields import (
    Label,
    MatchLabels,
    Name,
    Names,
    ShortText,
    at,
    duplicates,
    label_problems,
    quota_problems,
    taint_problems,
)
from bessemer.kinds.parts import made_of
from bessemer.kinds.tenancy.closing import REMEDY, Receipt, close, steps_done
from bessemer.kinds.tenancy.quota import LOOK_SECONDS, bound
from bessemer.kinds.tenancy.spend import tell

COLOURS = range(1, 11)

DEADLINES: Mapping[str, float] = {"Pending": 120.0, "Closing": 900.0, "Terminating": 600.0}

_SUSPENDED = "suspended: what it has goes on, nothing new is made, its people read"
_END_THEM = "Delete its projects, and before them what is in them."

MemberRole = Literal["tenant-admin", "member", "reader"]


class Member(ApiModel):
    """A user's part in a tenant."""

    user: Annotated[Name, Names("User")] = Field(description="Name of a User.")
    role: MemberRole = Field(
        "member", description="What they may: reader reads, member writes, tenant-admin makes projects too."
    )
    limits: Limits | None = Field(
        None, exclude_if=nothing, description="How much may be asked of endpoints at a time, with all keys of theirs."
    )
    budget: Budget | None = Field(
        None, exclude_if=nothing, description="What may be spent on tokens, with all keys of theirs."
    )


State = Literal["Active", "Suspended", "Closed"]


class OwnHosts(ApiModel):
    """Hosts that a tenant has to itself, by name and by labels."""

    names: list[Annotated[Name, Names("Host")]] = Field(
        default_factory=list,
        max_length=10_000,
        description="By name.",
        json_schema_extra=values_apart(),
    )
    match_labels: MatchLabels = Field(
        default_factory=dict, max_length=16, description="Those that bear all of these labels."
    )
    only: bool = Field(False, description="Whether it is kept to them: nothing of it lands on any other host.")

    def holds(self, name: str, labels: Mapping[str, str]) -> bool:
        """Whether a host of that name and with these labels is one of them."""
        return name in self.names or (bool(self.match_labels) and self.match_labels.items() <= labels.items())


class Allowed(ApiModel):
    """What a tenant may use of a kind: by name or by labels; everything where neither is said."""

    names: list[Name] = Field(
        default_factory=list, max_length=1000, description="By name.", json_schema_extra=values_apart()
    )
    match_labels: MatchLabels = Field(
        default_factory=dict, max_length=16, description="Those that bear all of these labels."
    )

    def admits(self, name: str, labels: Mapping[str, str]) -> bool:
        """Whether an object of that name and with these labels is among them."""
        if not self.names and not self.match_labels:
            return True
        return name in self.names or (bool(self.match_labels) and self.match_labels.items() <= labels.items())

    def __str__(self) -> str:
        """``small, medium or what bears tier=public``."""
        labels = ",".join(f"{key}={value}" for key, value in sorted(self.match_labels.items()))
        return " or ".join(filter(None, (", ".join(self.names), labels and f"what bears {labels}")))


class TenantSpec(ApiModel):
    display_name: ShortText = Field("", description="What people call it; free text.")
    state: State = Field(
        "Active",
        description="Suspended: what it has goes on, nothing new is made. Closed: everything is released, in order.",
    )
    sites: list[Label] = Field(
        default_factory=list,
        max_length=64,
        description="Sites where its workloads may be; all where none is named.",
        json_schema_extra=values_apart(),
    )
    hosts: OwnHosts = Field(default_factory=OwnHosts, description="Hosts that it has to itself.")
    flavors: Allowed = Field(default_factory=Allowed, description="Flavors that it may use.")
    images: Allowed = Field(default_factory=Allowed, description="Images that it may use.")
    models: Allowed = Field(default_factory=Allowed, description="Models that it may use.")
    quota: Quota = Field(default_factory=Quota, description="Upper bounds over all projects of the tenant.")
    limits: Limits | None = Field(
        None, exclude_if=nothing, description="How much may be asked of endpoints at a time, in all its projects."
    )
    budget: Budget | None = Field(
        None, exclude_if=nothing, description="What may be spent on tokens, in all its projects."
    )
    weight: int = Field(
        1,
        ge=1,
        le=1000,
        exclude_if=lambda said: said == 1,
        description="Its part of what several tenants want, beside theirs.",
    )
    max_priority: int = Field(
        0,
        ge=-1000,
        le=1000,
        exclude_if=nothing,
        description="The highest priority of its workloads; one above it counts as this.",
    )
    members: list[Member] = Field(
        default_factory=list,
        max_length=10_000,
        description="Who belongs to it.",
        json_schema_extra=keyed_by("user"),
    )
    price_plan: Annotated[Name, Names("PricePlan")] = Field(
        "standard", description="Name of the PricePlan by which it is billed."
    )
    tolerations: list[Toleration] = Field(
        default_factory=list,
        max_length=64,
        description="Taints of hosts that its workloads may bear; on hosts with any other nothing of it lands.",
        json_schema_extra=keyed_by("key"),
    )


class TenantStatus(Status):
    phase: Literal["Pending", "Active", "Suspended", "Closing", "Closed", "Terminating"] = Field(
        "Pending", description="Where it is in its life, in one word."
    )
    receipt: Receipt | None = Field(None, description="Of its closing: what was released when, and what it cost.")
    colour: int = Field(0, description="1 to 10: the colour on maps, given once.")
    message: str = Field("", description="What it waits for or what is wrong, in words; empty when all is well.")


class Tenant(Resource[TenantSpec, TenantStatus]):
    KIND = "Tenant"

    status: TenantStatus = Field(default_factory=TenantStatus)


def bearable(tenant: Mapping[str, Any]) -> frozenset[str]:
    """Keys of the taints that workloads of a tenant (its body as JSON) may bear."""
    return frozenset(toleration["key"] for toleration in tenant.get("spec", {}).get("tolerations", ()))


def own_hosts(tenant: Mapping[str, Any]) -> OwnHosts:
    """The hosts that a tenant (its body as JSON) has to itself; none once it is closed for good."""
    if tenant.get("status", {}).get("phase") == "Closed":
        return OwnHosts()
    return OwnHosts.model_validate(tenant.get("spec", {}).get("hosts") or {})


def allowed(tenant: Mapping[str, Any]) -> Mapping[str, Allowed]:
    """``flavor``, ``image``, ``model`` → what of these a tenant (its body as JSON) may use."""
    spec = tenant.get("spec", {})
    return {field: Allowed.model_validate(spec.get(f"{field}s") or {}) for field in ("flavor", "image", "model")}


def validate(new: Tenant, old: Tenant | None) -> Sequence[Cause]:
    """The name leaves room for a project's, and nobody is a member twice."""
    causes = [*quota_problems("spec.quota", new.spec.quota)]
    keys = [toleration.key for toleration in new.spec.tolerations]
    causes += duplicates("spec.tolerations", keys, field="key")
    causes += taint_problems("spec.tolerations", keys)
    causes += duplicates("spec.sites", new.spec.sites)
    for path, names in (
        ("spec.hosts.names", new.spec.hosts.names),
        ("spec.flavors.names", new.spec.flavors.names),
        ("spec.images.names", new.spec.images.names),
        ("spec.models.names", new.spec.models.names),
    ):
        causes += duplicates(path, names)
    if old is not None and _closed(old) and new.spec.state != "Closed":
        words = "its receipt is written and everything of it is gone; make another tenant"
        causes.append(Cause("spec.state", f"must stay Closed: {words}"))
    causes += duplicates("spec.members", [member.user for member in new.spec.members], field="user")
    if old is None:
        causes += label_problems(new.metadata.name, longest=60)
        if SEPARATOR in new.metadata.name:
            causes.append(Cause("metadata.name", f"must not contain {SEPARATOR!r}: it parts tenant and project"))
    return causes


def _closed(tenant: Tenant) -> bool:
    return tenant.status.receipt is not None and bool(tenant.status.receipt.digest)


async def reconcile(ctx: Context, tenant: Tenant) -> Outcome:
    """Give it a colour once, let the quota hold, and release everything where it is closed."""
    ctx.parts.note(tenant.key, (Key("PricePlan", "", tenant.spec.price_plan),), waits=False)
    colour = tenant.status.colour
    if not colour:
        page = await ctx.objects.list(Scope(kind="Tenant"))
        colour = colour_for(tenant.metadata.name, [Tenant.load(stored.body) for stored in page.items])
    meta, again = tenant.metadata, None
    if tenant.spec.quota.spend_micro is not None and tenant.spec.state != "Closed":
        upto = await ctx.ledger.last()
        projects = await ctx.ledger.projects(meta.uid)
        again = await tell(ctx, f"tenant/{meta.name}", projects=projects, plan=tenant.spec.price_plan, upto=upto)
    over = await bound(ctx, f"tenant/{meta.name}", quota=tenant.spec.quota, revision=meta.resource_version)
    update = {"phase": tenant.spec.state, "colour": colour, "message": over, "receipt": tenant.status.receipt}
    status = tenant.status.model_copy(update=update)
    if tenant.spec.state == "Closed":
        return await _close(ctx, tenant, status=status)
    if not _closed(tenant):
        status = status.model_copy(update={"receipt": None})  # what it kept is its own again
    if tenant.spec.state == "Suspended":
        status = status.model_copy(update={"message": _SUSPENDED})
        return Done(status=status, ready=False, reason="Suspended", message=_SUSPENDED, again=again)
    if over:
        return Done(status=status, reason="OverQuota", message=over, again=again or LOOK_SECONDS)
    return Done(status=status, again=again)


async def _close(ctx: Context, tenant: Tenant, *, status: TenantStatus) -> Outcome:
    """One step of its closing; Done once nothing is left, and from then on."""
    receipt, waits, again = status.receipt or Receipt(), "", 0.0
    if not receipt.digest:
        receipt, waits, again = await close(
            ctx, tenant=tenant.metadata.name, plan=tenant.spec.price_plan, receipt=receipt
        )
    status = status.model_copy(update={"receipt": receipt, "message": waits})
    if receipt.digest:
        said = f"everything was released by {receipt.closed_at}"
        return Done(status=status.model_copy(update={"phase": "Closed"}), ready=False, reason="Closed", message=said)
    status = status.model_copy(update={"phase": "Closing"})
    done = steps_done(receipt)
    return Wait(reason="Closing", message=waits, status=status, again=again, remedy=REMEDY, done=done)


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
    """Wait for its projects to go, which a closing takes along, then forget its quota."""
    name = tenant.metadata.name
    if tenant.spec.state == "Closed" and not _closed(tenant):
        closing = await _close(ctx, tenant, status=tenant.status)
        if isinstance(closing, Wait):
            return closing
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
