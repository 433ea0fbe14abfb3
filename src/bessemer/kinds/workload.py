"""What all kinds share that hold Claims: finding a place, reading what their hosts say, letting go.

Invariants: a claim is taken for one uid of a workload and never mistaken for that of another of the same name; hardware
is given back only when the agent said Gone or the host was fenced. It knows no kind: what a claim is for, and what its
phases mean to the workload, is the kind's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

import orjson

from bessemer.core.asking import Asker, Decision, Reason, ReasonView, Request, Toleration
from bessemer.core.beside import PciPlace
from bessemer.core.errors import BessemerError, NotFound, Taken
from bessemer.core.hosts import Device
from bessemer.core.ports import CONTROLLER, Objects, Scope
from bessemer.core.resource import Change, Key, Resource, tenant_of
from bessemer.core.units import parse_bytes
from bessemer.core.values import Asked, ClaimSpec, Movable, Placement, WorkloadRef
from bessemer.kinds.context import Context
from bessemer.kinds.fleet.claim import Claim
from bessemer.kinds.fleet.flavor import Flavor, FlavorSpec
from bessemer.kinds.fleet.host import REACHABLE, Host
from bessemer.kinds.fleet.moved import movers
from bessemer.kinds.tenancy.tenant import Allowed, allowed, bearable, own_hosts

_HEARD = tuple(f'{before}{{"type":"{REACHABLE}","status":"True"'.encode() for before in "[,")
_FENCED = b'"fenced":true'
"""What the body of a Host that is well holds, and what it does not. Within quotes nobody can write the first, and
nobody but the controller has a list of such objects there; where it is another way round, all is read."""

_PARTS_KEPT = 256
"""Bodies of flavors, images and models that need not be read again: many workloads are made of few."""

LABEL_KIND, LABEL_NAME = "bessemer.dev/workload-kind", "bessemer.dev/workload-name"

R = TypeVar("R", bound=Resource[Any, Any])


class Reads(Protocol):
    """What is needed to read objects: a Context, or less."""

    @property
    def objects(self) -> Objects: ...


@dataclass(frozen=True, slots=True)
class HostView:
    """What a workload needs to know of a host that holds its claim."""

    name: str
    reachable: bool = True
    fenced: bool = False
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a tenant may, as its object said at ``revision``: "" where there is no such tenant."""

    tenant: str
    revision: str = ""
    bearable: frozenset[str] = frozenset()
    sites: frozenset[str] = frozenset()
    own_hosts: bool = False
    allowed: Mapping[str, Allowed] = field(default_factory=lambda: MappingProxyType({}))
    max_priority: int = 0

    def refuses(self, *parts: Resource[Any, Any]) -> str:
        """What to say where the tenant may not use one of these; "" where it may use all."""
        for part in parts:
            among = self.allowed.get(part.KIND.lower())
            if among is not None and not among.admits(part.metadata.name, part.metadata.labels):
                return f"tenant {self.tenant} may not use {part.KIND} {part.metadata.name}, but {among}"
        return ""


@dataclass(frozen=True, slots=True)
class Make:
    """What each replica of a workload is made of; ``labels`` and ``notes`` (annotations) are put on its claim."""

    flavor: Flavor
    intent: Mapping[str, Any]
    terms: Terms
    asker: Asker | None = None
    movable: Movable = ""
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    notes: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@lru_cache(_PARTS_KEPT)
def _loaded(resource: type[Resource[Any, Any]], body: bytes) -> Resource[Any, Any]:
    """What a body says, whose reader changes nothing of it."""
    return resource.load(body)


async def read_part(ctx: Reads, resource: type[R], *, name: str) -> R | None:
    """`read` of what many workloads are made of."""
    try:
        stored = await ctx.objects.get(Key(resource.KIND, "", name))
    except NotFound:
        return None
    found = _loaded(resource, stored.body)
    assert isinstance(found, resource)
    return found


async def read(ctx: Reads, resource: type[R], *, name: str, namespace: str = "") -> R | None:
    """The object, or None where there is none."""
    try:
        stored = await ctx.objects.get(Key(resource.KIND, namespace, name))
    except NotFound:
        return None
    return resource.load(stored.body)


# --- claims -----------------------------------------------------------------------------------------------------


async def claim_of(ctx: Context, workload: Resource[Any, Any]) -> Claim | None:
    """The claim of a workload that holds one, or one that an earlier workload of its name held."""
    key = claim_key(workload)
    return await read(ctx, Claim, namespace=key.namespace, name=key.name)


def claim_key(workload: Resource[Any, Any], replica: int = 0) -> Key:
    """``instance-NAME-0`` in the workload's project."""
    meta = workload.metadata
    return Key("Claim", meta.namespace or "", f"{workload.KIND.lower()}-{meta.name}-{replica}")


async def own_claims(ctx: Reads, workload: Resource[Any, Any]) -> Sequence[Claim]:
    """All claims of this very workload, by replica."""
    meta = workload.metadata
    labels = {LABEL_KIND: workload.KIND, LABEL_NAME: meta.name}
    page = await ctx.objects.list(Scope(kind="Claim", namespace=meta.namespace or "", labels=labels))
    claims = [Claim.load(stored.body) for stored in page.items]
    return sorted((c for c in claims if c.spec.workload.uid == workload.uid), key=lambda c: c.spec.workload.replica)


async def take(ctx: Context, workload: Resource[Any, Any], *, decision: Decision, make: Make, replica: int = 0) -> None:
    """Take what was decided for one replica. Raises QuotaExceeded, Walled, Taken."""
    await take_all(ctx, workload, parts={replica: (decision, make)})


async def take_all(ctx: Context, workload: Resource[Any, Any], *, parts: Mapping[int, tuple[Decision, Make]]) -> None:
    """Take what was decided for these replicas, of one tenant: all of it or nothing. Raises QuotaExceeded, Walled,
    Taken."""
    claims = [await claim_for(ctx, workload, decision=d, make=m, replica=n) for n, (d, m) in parts.items()]
    # Held in the arrays while the transaction is under way: others decide meanwhile, and would want the same place.
    for replica, (decision, _) in parts.items():
        ctx.fleet.assume(decision, f"{workload.uid}/{replica}")
    try:
        terms = next(make.terms.revision for _, make in parts.values())
        await ctx.capacity.take(claims, CONTROLLER, terms=terms)
    except BessemerError as error:
        # Of several places nobody says which one was lost: the others are free.
        lost = isinstance(error, Taken) and len(parts) == 1
        for replica in parts:
            ctx.fleet.forget(f"{workload.uid}/{replica}", lost=lost)
        raise


async def claim_for(
    ctx: Context, workload: Resource[Any, Any], *, decision: Decision, make: Make, replica: int
) -> tuple[Key, ClaimSpec, Mapping[str, Any]]:
    """The Claim of one replica, as it is taken."""
    meta, flavor = workload.metadata, make.flavor
    spec = ClaimSpec(
        **decision.taken(),
        tenant=tenant_of(meta.namespace or ""),
        workload=WorkloadRef(kind=workload.KIND, name=meta.name, uid=workload.uid, replica=replica),
        device_model=await _model_of(ctx, decision, flavor=flavor),
        tree=[_hangs(device) for device in decision.tree],
        flavor=flavor.metadata.name,
        asked=_asked(decision.request) if decision.request else None,
        fake=decision.fake,
        **_tenure(make.asker),
        movable=make.movable,
        since=int(ctx.clock.now()),
        placement=Placement(fitting=decision.fitting, score=dict(decision.score), reasons=shown(decision.reasons)),
        intent=dict(make.intent),
    )
    labels = {**make.labels, LABEL_KIND: workload.KIND, LABEL_NAME: meta.name}
    metadata: dict[str, Any] = {"labels": labels, "ownerReferences": [workload.owner_reference().dump()]}
    metadata |= {"annotations": dict(make.notes)} if make.notes else {}
    return claim_key(workload, replica), spec, metadata


@lru_cache(_PARTS_KEPT)
def _asked(request: Request) -> Asked:
    """As a claim keeps it, whose maker changes nothing of it."""
    return Asked.of(request)


def _tenure(asker: Asker | None) -> dict[str, Any]:
    """On what terms a claim stands that is taken for ``asker``."""
    if asker is None:
        return {}
    return {"priority": asker.priority, "preemptible": asker.preemptible, "ends": asker.ends}


def _hangs(device: Device) -> PciPlace:
    return PciPlace(
        device=device.id,
        kind=device.kind,
        address=device.address,
        switch=device.pcie_switch,
        numa_node=device.numa_node,
    )


async def _model_of(ctx: Context, decision: Decision, *, flavor: Flavor) -> str:
    """The model of the devices, as it is priced: the flavor's, or where that leaves it open, what the host has."""
    wanted = flavor.spec.devices.model if flavor.spec.devices else ""
    if not decision.devices or wanted:
        return wanted if decision.devices else ""
    host = await read(ctx, Host, name=decision.host)
    found = host.status.report.devices if host is not None and host.status.report is not None else []
    return next((device.model for device in found if device.id == decision.devices[0]), "")


async def let_go(ctx: Context, claim: Claim, *, host: HostView) -> str:
    """One step towards the claim's end. "" when it is released, else what it waits for."""
    if claim.status.phase == "Gone" or host.fenced:
        await ctx.capacity.release(claim.key, CONTROLLER, fenced=host.fenced, uid=claim.uid)
        return ""
    if not claim.deleting:
        await ctx.capacity.retire(claim.key, CONTROLLER, uid=claim.uid)
    if not host.reachable:
        return f"{host.message}; what {claim.metadata.name} holds is given back when it is heard of again, or fenced"
    trouble = f" ({claim.status.message})" if claim.status.message and claim.deleting else ""
    return f"Host {host.name} clears {claim.metadata.name} away{trouble}"


# --- hosts ------------------------------------------------------------------------------------------------------


async def host_view(ctx: Context, name: str) -> HostView:
    """How the host is. A Host that is gone can run nothing any more: its claims may be released.

    Asked in every turn of every workload, of the store and not of what follows it: what is not there yet would be given
    away, or not looked at again. Of a body with hundreds of devices only two fields are looked at, and it is not even
    parsed where the host is well.
    """
    try:
        body = (await ctx.objects.get(Key("Host", "", name))).body
    except NotFound:
        return HostView(name, reachable=False, fenced=True, message=f"Host {name} is gone")
    if _FENCED not in body and any(heard in body for heard in _HEARD):
        return HostView(name)
    status = orjson.loads(body).get("status", {})
    heard = next((c for c in status.get("conditions", ()) if c["type"] == REACHABLE), {"status": "True"})
    silent = heard["status"] != "True"
    message = f"Host {name} is silent: {heard.get('message') or heard.get('reason')}" if silent else ""
    return HostView(name, reachable=not silent, fenced=bool(status.get("fenced")), message=message)


async def host_views(ctx: Context, claims: Sequence[Claim]) -> Mapping[str, HostView]:
    """The hosts of these claims, by name."""
    return {name: await host_view(ctx, name) for name in sorted({claim.spec.host for claim in claims})}


# --- placement --------------------------------------------------------------------------------------------------


async def terms_of(ctx: Reads, project: str) -> Terms:
    """The terms of the project's tenant."""
    tenant = tenant_of(project)
    try:
        stored = await ctx.objects.get(Key("Tenant", "", tenant))
    except NotFound:
        return Terms(tenant=tenant)
    return _terms(tenant, str(stored.revision), body=stored.body)


@lru_cache(_PARTS_KEPT)
def _terms(tenant: str, revision: str, *, body: bytes) -> Terms:
    """Many workloads are of few tenants."""
    said = orjson.loads(body)
    return Terms(
        tenant=tenant,
        revision=revision,
        bearable=bearable(said),
        sites=frozenset(said.get("spec", {}).get("sites", ())),
        own_hosts=own_hosts(said).only,
        allowed=MappingProxyType(allowed(said)),
        max_priority=said.get("spec", {}).get("maxPriority", 0),
    )


def request_of(terms: Terms, flavor: FlavorSpec, *, tolerations: Sequence[Toleration], **wishes: Any) -> Request:
    """What one replica of that flavor asks of a host; ``wishes`` are further fields of the request."""
    devices = flavor.devices
    return Request(
        tenant=terms.tenant,
        bearable=terms.bearable,
        sites=terms.sites,
        own_hosts=terms.own_hosts,
        milli_cores=flavor.cores * 1000,
        memory_bytes=parse_bytes(flavor.memory),
        device_count=devices.count if devices else 0,
        device_milli=devices.milli if devices else 1000,
        device_bytes=devices.memory_bytes if devices else 0,
        device_profile=devices.profile if devices else "",
        device_models=frozenset({devices.model} if devices and devices.model else ()),
        numa=flavor.numa,
        same_switch=devices is not None and "switch" in devices.together,
        same_nvlink=devices is not None and "nvlink" in devices.together,
        companions=tuple(one.wanted() for one in flavor.companions),
        cpu_policy=flavor.cpu_policy,
        page_bytes=parse_bytes(flavor.hugepages),
        tolerations=tuple(t.key for t in tolerations),
        **wishes,
    )


async def parted(ctx: Context, *parts: Key) -> str:
    """What to say where something that a workload was made of is gone; "" where all of it is there."""
    gone = []
    for part in parts:
        try:
            await ctx.objects.get(part)
        except NotFound:
            gone.append(f"{part.kind} {part.name}")
    are = "is" if len(gone) == 1 else "are"
    return f"{' and '.join(gone)} {are} gone; what stands keeps what it has" if gone else ""


def shown(reasons: Sequence[Reason]) -> list[ReasonView]:
    """Why hosts were set aside, as an object carries it."""
    return [ReasonView(code=r.code, hosts=r.hosts, text=r.text) for r in reasons]


# --- wakes ------------------------------------------------------------------------------------------------------


def wake_by_claim(kind: str, *, taken: bool = True) -> Callable[[Context, Change], AsyncIterator[Key]]:
    """A claim's change concerns the workload that holds it. That it was ``taken`` is no news where the turn that took
    it says so in the status that it ends with: whatever keeps it from that looks again by itself."""

    # Each kind that holds claims is asked of each change of one; of those that are another's none is parsed.
    named = f'"kind":"{kind}"'.encode()

    async def wake(_ctx: Context, change: Change) -> AsyncIterator[Key]:
        if named not in change.body or (change.type == "ADDED" and not taken):
            return
        holder = _holder(change.key, change.body)
        if holder.kind == kind:
            yield holder

    return wake


def wake_by_host(kind: str) -> Callable[[Context, Change], AsyncIterator[Key]]:
    """A host's change concerns whoever holds a claim there."""

    async def wake(ctx: Context, change: Change) -> AsyncIterator[Key]:
        page = await ctx.objects.list(Scope(kind="Claim", host=change.key.name))
        for stored in page.items:
            holder = _holder(stored.key, stored.body)
            if holder.kind == kind:
                yield holder

    return wake


def wake_by_move(kind: str) -> Callable[[Context, Change], AsyncIterator[Key]]:
    """A consolidation's change concerns whoever holds what it moves, and finds what it says known."""

    async def wake(ctx: Context, change: Change) -> AsyncIterator[Key]:
        ctx.fleet.moving.changed(change)
        for key in movers(change.body):
            if key.kind == kind:
                yield key

    return wake


def _holder(claim: Key, body: bytes) -> Key:
    """Whose the claim is."""
    workload = orjson.loads(body)["spec"]["workload"]
    return Key(workload["kind"], claim.namespace, workload["name"])


def wake_by_part(kind: str) -> Callable[[Context, Change], AsyncIterator[Key]]:
    """A flavor, image or model that comes or goes concerns all that name it, one that changes those that wait."""

    async def wake(ctx: Context, change: Change) -> AsyncIterator[Key]:
        for key in ctx.parts.concerned(change.key, waiting=change.type == "MODIFIED"):
            if key.kind == kind:
                yield key

    return wake
