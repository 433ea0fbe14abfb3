"""Host: a server with its devices in a topology. Its agent speaks for it.

Two write its status: the agent writes ``report`` (what it found), the control side all else. A heartbeat renews a lease
and changes no object; when the lease runs out the Host is not Reachable, and its Claims stay until the agent is back or
the host is fenced. A fake host carries the taint ``bessemer.dev/fake`` and says so wherever it is shown.

Invariants: hardware of a silent host is given away only on an administrator's word (``spec.fenced``), and never while
its agent is heard; a Host goes only when no Claim stands on it. It places nothing: `inventory` and placement do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from bessemer.core.asking import Taint
from bessemer.core.clock import rfc3339
from bessemer.core.errors import Cause
from bessemer.core.hosts import Inventory
from bessemer.core.ports import CONTROLLER, Lease, Scope, Stored
from bessemer.core.resource import (
    ALL,
    READ,
    ApiModel,
    Column,
    Done,
    Kind,
    Outcome,
    Resource,
    Status,
    Wait,
    keyed_by,
    set_condition,
)
from bessemer.core.units import show_bytes
from bessemer.kinds.context import Context
from bessemer.kinds.fields import Label, at, duplicates, label_problems, ready, taint_problems
from bessemer.kinds.fleet.heartbeats import lease_of

FAKE_TAINT = "bessemer.dev/fake"
REACHABLE = "Reachable"

DEADLINES: Mapping[str, float] = {
    "Enrolling": 900.0,
    "Fencing": 600.0,
    "Unreachable": 600.0,
    "Deleting": 600.0,
}

_SILENT = "its agent is not heard of; what runs there is left alone"
_SILENT_REMEDY = "Bring the host or its agent back. If it is surely off, set spec.fenced to give its claims away."
_SILENT_LOOK_SECONDS = 2.0
_HEARD_LOOK_SECONDS = 10.0
_UNFIT_SHOWN = 3
"""Devices that are named in a message."""

HostPhase = Literal["Enrolling", "Ready", "Cordoned", "Fencing", "Unreachable", "Fenced", "Deleting"]


class HostSpec(ApiModel):
    site: Label = Field("local", description="Where it stands.")
    taints: list[Taint] = Field(
        default_factory=list,
        max_length=64,
        description="Nothing lands here unless it tolerates all of them.",
        json_schema_extra=keyed_by("key"),
    )
    unschedulable: bool = Field(False, description="Cordoned: what runs goes on, nothing new lands here.")
    overcommit_milli: int = Field(
        1000, ge=1000, le=64_000, description="4000 sells each core four times; memory never."
    )
    revoked: bool = Field(False, description="The agent's certificate is worth nothing; a new join is needed.")
    fenced: bool = Field(False, description="An administrator's word that nothing runs there any more.")


class HostStatus(Status):
    phase: HostPhase = Field(
        "Enrolling",
        description="Enrolling until its agent has reported, Unreachable while it is silent, Fencing while it is still "
        "heard but to be given up, Fenced once that is done.",
    )
    report: Inventory | None = Field(None, description="What the agent found.")
    key_fingerprint: str = Field("", description="SHA-256 of the joined agent's public key.")
    joined_at: str | None = Field(None, description="When its agent joined.")
    message: str = Field("", description="What it waits for or what is wrong, in words; empty when all is well.")
    taints: list[str] = Field(default_factory=list, description="Keys of all taints, those of its nature included.")
    declared: str = Field("", description="Digest of what capacity was last told of this host.")
    fenced: bool = Field(False, description="spec.fenced, and its agent is silent: nothing runs there.")


class Host(Resource[HostSpec, HostStatus]):
    KIND = "Host"

    status: HostStatus = Field(default_factory=HostStatus)

    @property
    def reachable(self) -> bool:
        """Whether its agent is heard of, as was last observed."""
        condition = self.status.condition(REACHABLE)
        return condition is not None and condition.status == "True"

    @property
    def open(self) -> bool:
        """Whether something new may land here, if it is reachable."""
        return not (self.spec.unschedulable or self.spec.fenced or self.deleting)

    @property
    def taint_keys(self) -> Sequence[str]:
        """Its own taints and that of its nature."""
        fake = self.status.report is not None and self.status.report.fake
        return sorted({taint.key for taint in self.spec.taints} | ({FAKE_TAINT} if fake else set()))


def validate(new: Host, old: Host | None) -> Sequence[Cause]:
    """Names that become certificates, taints that somebody can tolerate."""
    causes = [] if old else [*label_problems(new.metadata.name)]
    keys = [taint.key for taint in new.spec.taints]
    causes += duplicates("spec.taints", keys, field="key")
    causes += taint_problems("spec.taints", keys)
    return causes


# --- observe ----------------------------------------------------------------------------------------------------


async def lease_left(ctx: Context, name: str) -> float:
    """Seconds for which the host's heartbeat still holds; not above 0 when it ran out or never was."""
    lease = lease_of(name)
    held: Sequence[Lease] = await ctx.leases.held(lease)
    mine = next((one for one in held if one.name == lease), None)
    return mine.expires_at - ctx.clock.now() if mine is not None else 0.0


async def claims_on(ctx: Context, name: str) -> Sequence[Stored]:
    """Every Claim on the host."""
    return (await ctx.objects.list(Scope(kind="Claim", host=name))).items


# --- act --------------------------------------------------------------------------------------------------------


async def reconcile(ctx: Context, host: Host) -> Outcome:
    """Follow the heartbeat and the report."""
    left = await lease_left(ctx, host.metadata.name)
    if not host.status.key_fingerprint:
        remedy = "Run `bessemer agent` on the host with a join token for this Host."
        return _enrolling(host, "NotJoined", message="no agent has joined yet", remedy=remedy)
    if host.status.report is None:
        remedy = "See the agent's log on the host; start the agent again."
        message = "the agent has joined and inspects the machine"
        return _enrolling(host, "NoReport", message=message, remedy=remedy)
    status = await _declared(ctx, host, report=host.status.report, heard=left > 0)
    status = _observed(host, status, heard=left > 0, now=ctx.clock.now())
    if left > 0:
        return _heard(host, status)
    if host.spec.fenced:
        return await _fenced(ctx, status, name=host.metadata.name)
    status = status.model_copy(update={"phase": "Unreachable", "message": _SILENT})
    return Wait(reason="HostSilent", message=_SILENT, status=status, again=_SILENT_LOOK_SECONDS, remedy=_SILENT_REMEDY)


async def finalize(ctx: Context, host: Host) -> Outcome:
    """Wait until no Claim stands here, then forget what the host has."""
    name = host.metadata.name
    heard = await lease_left(ctx, name) > 0
    status = host.status
    if status.report is not None:
        status = await _declared(ctx, host, report=status.report, heard=heard)
    status = _observed(host, status, heard=heard, now=ctx.clock.now())
    if host.spec.fenced and not heard:
        await _give_away(ctx, name)
    standing = await claims_on(ctx, name)
    if not standing:
        await ctx.capacity.withdraw(name, revision=host.metadata.resource_version)
        return Done(reason="Deleted")
    # Whose they are is not said: who runs hosts need not know of tenants.
    message = f"{len(standing)} claim{'s stand' if len(standing) > 1 else ' stands'} here"
    status = status.model_copy(update={"phase": "Deleting", "message": message})
    remedy = f"Delete the workloads (of claims with spec.host={name}), or power the host off and set spec.fenced."
    return Wait(reason="ClaimsRemain", message=message, status=status, again=2.0, remedy=remedy)


async def _declared(ctx: Context, host: Host, *, report: Inventory, heard: bool) -> HostStatus:
    """Tell capacity what there is, where it does not know yet."""
    schedulable = host.open and heard
    words = f"{host.spec.overcommit_milli} {schedulable} {report.model_dump_json()}"
    digest = hashlib.sha256(words.encode()).hexdigest()[:16]
    if digest == host.status.declared:
        return host.status
    await ctx.capacity.declare(
        host.metadata.name,
        report,
        overcommit_milli=host.spec.overcommit_milli,
        schedulable=schedulable,
        revision=host.metadata.resource_version,
    )
    return host.status.model_copy(update={"declared": digest})


async def _fenced(ctx: Context, status: HostStatus, *, name: str) -> Outcome:
    """Silent, and an administrator vouches for it: what it held is free."""
    await _give_away(ctx, name)
    message = "fenced: its claims are given away"
    status = status.model_copy(update={"phase": "Fenced", "message": message})
    return Done(status=status, ready=False, reason="Fenced", message=message, again=_SILENT_LOOK_SECONDS)


async def _give_away(ctx: Context, name: str) -> None:
    for stored in await claims_on(ctx, name):
        await ctx.capacity.release(stored.key, CONTROLLER, fenced=True, uid=stored.uid)


# --- report -----------------------------------------------------------------------------------------------------


def _enrolling(host: Host, reason: str, *, message: str, remedy: str) -> Outcome:
    status = host.status.model_copy(update={"phase": "Enrolling", "message": message})
    return Wait(reason=reason, message=message, status=status, again=30.0, remedy=remedy)


def _observed(host: Host, status: HostStatus, *, heard: bool, now: float) -> HostStatus:
    """``status`` with what is so in every phase: whether the agent is heard, and the taints."""
    conditions = set_condition(
        status.conditions,
        REACHABLE,
        heard,
        reason="Heartbeat" if heard else "HeartbeatLost",
        message="" if heard else _SILENT,
        now=rfc3339(now),
    )
    fenced = host.spec.fenced and not heard
    return status.model_copy(update={"conditions": conditions, "taints": list(host.taint_keys), "fenced": fenced})


def _heard(host: Host, status: HostStatus) -> Outcome:
    """That its lease runs out is told by `heartbeats`."""
    if host.spec.fenced:
        message = "it is to be fenced, but its agent is still heard: nothing is given away"
        status = status.model_copy(update={"phase": "Fencing", "message": message})
        remedy = "Power the host off, or take spec.fenced back."
        return Wait(reason="StillHeard", message=message, status=status, again=_HEARD_LOOK_SECONDS, remedy=remedy)
    if host.spec.unschedulable:
        status = status.model_copy(update={"phase": "Cordoned", "message": "nothing new lands here"})
        return Done(status=status, reason="Cordoned", message="nothing new lands here")
    status = status.model_copy(update={"phase": "Ready", "message": _unfit(host.status.report)})
    return Done(status=status)


def _unfit(report: Inventory | None) -> str:
    """What of it nobody may have now, and why, as its agent says."""
    said = [f"{one.kind} {one.id}: {one.unfit}" for one in (report.devices if report else ()) if one.unfit]
    more = f"; and {len(said) - _UNFIT_SHOWN} more" if len(said) > _UNFIT_SHOWN else ""
    return "; ".join(said[:_UNFIT_SHOWN]) + more


# --- shown ------------------------------------------------------------------------------------------------------


def _fake(body: Mapping[str, Any]) -> bool:
    """By its report; by its taint until there is one."""
    report = body.get("status", {}).get("report")
    if report:
        return bool(report.get("fake"))
    return any(taint.get("key") == FAKE_TAINT for taint in body.get("spec", {}).get("taints", ()))


def _threads(body: Mapping[str, Any]) -> int:
    return sum(node.get("threads", 0) for node in at("status", "report", "numa", default=())(body))


def _memory(body: Mapping[str, Any]) -> str:
    return show_bytes(sum(node.get("memoryBytes", 0) for node in at("status", "report", "numa", default=())(body)))


def _gpus(body: Mapping[str, Any]) -> str:
    models = [d["model"] for d in at("status", "report", "devices", default=())(body) if d.get("kind") == "gpu"]
    return ", ".join(f"{models.count(model)} × {model}" for model in sorted(set(models)))


KIND: Kind[Context, Host] = Kind(
    resource=Host,
    plural="hosts",
    namespaced=False,
    # Tenants may not know the hosts; an agent sees its own, and writes its report.
    rights={"admin": ALL, "operator": ALL, "auditor": READ, "agent": (*READ, "update")},
    below={"token": {"admin": ("create",), "operator": ("create",)}},
    validate=validate,
    reconcile=reconcile,
    finalize=finalize,
    deadlines=DEADLINES,
    columns=(
        Column(name="Phase", value=at("status", "phase", default="Enrolling")),
        Column(name="Ready", value=ready),
        Column(name="Threads", value=_threads, type="integer"),
        Column(name="Memory", value=_memory),
        Column(name="GPUs", value=_gpus),
        Column(name="Guests", value=at("status", "report", "virtualization")),
        Column(name="Fake", value=_fake, type="boolean"),
        Column(name="Taints", value=lambda body: ", ".join(at("status", "taints", default=())(body)), wide=True),
        Column(name="Leaf", value=at("status", "report", "leaf"), wide=True),
        Column(name="Spine", value=at("status", "report", "spine"), wide=True),
        Column(name="Isolation", value=at("status", "report", "isolation"), wide=True),
        Column(name="Agent", value=at("status", "report", "agentVersion"), wide=True),
        Column(name="Message", value=at("status", "message"), wide=True),
    ),
)
