"""Which claims are in the way of a plan, why each of them stays, and who may do what about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bessemer.core.asking import Refusal, Request
from bessemer.core.ports import Scope
from bessemer.core.quota import MONEY, by_claims
from bessemer.core.resource import Resource, tenant_of
from bessemer.core.values import Movable
from bessemer.kinds import workload
from bessemer.kinds.asks import ASKS
from bessemer.kinds.context import Looks
from bessemer.kinds.fleet.claim import Claim
from bessemer.kinds.fleet.consolidation.spec import Step
from bessemer.kinds.tenancy.tenant import Tenant
from bessemer.placement import Hold
from bessemer.placement.cheapest import cheapest, drained
from bessemer.placement.filters import fitting, sift
from bessemer.placement.moves.plan import Move, Plan, Planner
from bessemer.placement.sight import Sight

NAMED = 6
"""Claims that are named at most; the others are counted."""

_ANEW = "`movable: true` in its spec counts for places that are taken from then on"


@dataclass(frozen=True, slots=True)
class Stuck:
    """A claim that stays where it is. ``nowhere`` says why no other host takes it; "" where it may not be moved."""

    uid: str
    host: str
    nowhere: str = ""


@dataclass(frozen=True, slots=True)
class NoPlan:
    """Why there is none, and what would help. ``stuck`` are the claims in the way, which are not in the message yet;
    ``going`` those that would go."""

    reason: str
    message: str
    remedy: str
    stuck: Sequence[Stuck] = ()
    going: Sequence[Move] = ()

    @property
    def words(self) -> str:
        """All of it."""
        return f"{self.message}. {self.remedy}" if self.remedy else self.message


@dataclass(frozen=True, slots=True)
class _Why:
    """Why a claim stays, and what to do."""

    words: str
    remedy: str


_GOING = _Why("goes by itself", "Wait for what goes by itself.")
_KEPT = _Why("a place that is just being taken, or kept for somebody", "Wait a moment.")
_GANG = _Why(
    "a gang would have to begin anew for the place of one", "Wait until the gang has ended, or ask its owner to end it."
)
_OLD = _Why("does not say what it was placed by", "Ask the owner of what an older release placed to make it anew.")
_FIXED = _Why(
    "not movable: neither spec.movable nor spec.preemptible says that it may be stopped",
    f"Ask the owner of what is not movable to delete it and make it anew: {_ANEW}.",
)
_LATE = _Why(
    "said to be movable only after it was placed",
    f"Ask the owner of what said so too late to delete it and make it anew: {_ANEW}.",
)


def counted(count: int, word: str) -> str:
    """``1 move``, ``2 moves``."""
    return f"{count} {word}{'s' * (count != 1)}"


# --- who lets what be moved -------------------------------------------------------------------------------------------


async def how(ctx: Looks, step: Step) -> Movable:
    """How the claim's owner lets it be moved by now; "" where it does not, is gone, or would get no place anew."""
    found = await _holder(ctx, step.workload_kind, project=step.project, name=step.workload)
    if found is None or found.uid != step.workload_uid or found.deleting:
        return ""
    moves: Movable = found.spec.moves
    return "" if moves and await _kept_out(ctx, found) else moves


async def _holder(ctx: Looks, kind: str, *, project: str, name: str) -> Resource[Any, Any] | None:
    known = ASKS.get(kind)
    return await workload.read(ctx, known.kind, name=name, namespace=project) if known else None


async def _kept_out(ctx: Looks, holder: Resource[Any, Any]) -> str:
    """Why it would have no place again, whatever is free: what it is made of is gone or withdrawn, its tenant is
    suspended, or a bound was lowered or is spent. What stands may stay; once it is stopped, it is lost. "" where it
    would."""
    for hindrance in (await ASKS[holder.KIND].of(ctx, holder)).hindrances:
        return hindrance.message
    project = holder.metadata.namespace or ""
    tenant = await workload.read(ctx, Tenant, name=tenant_of(project))
    if tenant is not None and tenant.spec.state != "Active":
        return f"tenant {tenant_of(project)} is not active"
    for scope in (f"project/{project}", f"tenant/{tenant_of(project)}"):
        for use in await ctx.capacity.use(scope):
            if use.limit is not None and (
                use.used + use.held >= use.limit
                if use.meter == MONEY
                else use.used > use.limit and by_claims(use.meter)
            ):
                return f"the {use.meter} of {scope} are used up"
    return ""


# --- what is in the way, out of the arrays ----------------------------------------------------------------------------


def stuck_in(planner: Planner, plan: Plan, *, hosts: Sequence[str]) -> Sequence[Stuck]:
    """What a plan that empties hosts leaves on them. The planner's arrays are a fork that nobody needs any more: what
    the plan moves stands in them where it goes."""
    fleet, prices = planner.fleet, planner.prices()
    rows = [row for row in map(fleet.row, hosts) if row is not None]
    cost = {planner.holdings.held(slot)[0]: prices[slot] for row in rows for slot in planner.holdings.at(row)}
    holds = {uid: hold for uid in plan.stuck if (hold := fleet.held.of(uid)) is not None}
    for move in plan.moves:
        fleet.hold(move.uid, move.hold)
    fleet.present[rows] = False
    return [
        Stuck(uid, hold.host, _nowhere(planner, hold) if np.isfinite(cost.get(uid, np.inf)) else "")
        for uid, hold in holds.items()
    ]


def staying(planner: Planner, request: Request | None = None) -> Sequence[Stuck]:
    """What may not be moved of what is on open hosts; with a ``request`` on those that would take it, were they
    empty."""
    fleet, prices = planner.fleet, planner.prices()
    n = fleet.size
    chosen = fleet.present[:n] & fleet.reachable[:n] & fleet.schedulable[:n]
    if request is not None:
        chosen = chosen & fitting(drained(Sight.of(fleet, request)))
    slots = [slot for row in np.flatnonzero(chosen).tolist() for slot in planner.holdings.at(row)]
    held = [planner.holdings.held(slot) for slot in slots if not np.isfinite(prices[slot])]
    return [Stuck(uid, hold.host) for uid, hold in held]


def impossible(planner: Planner, request: Request, *, flavor: str) -> NoPlan | None:
    """Where no host would take it, were it empty."""
    sight = Sight.of(planner.fleet, request)
    fits, reasons = sift(drained(sight))
    if fits.any():
        return None
    change = cheapest(sight)
    remedy = f"What would help: {change.text}." if change is not None else "Name another flavor."
    tolerate = " Taints are tolerated by spec.open.tolerations (`--tolerate`)." * any(
        reason.code == "Tainted" for reason in reasons
    )
    return NoPlan(
        "NoPlan",
        f"no host would take Flavor {flavor}, were it empty: {Refusal(reasons=reasons)}",
        f"{remedy}{tolerate}",
    )


def _nowhere(planner: Planner, hold: Hold) -> str:
    """Why no other host takes it, once all that goes has gone."""
    if hold.request is None:
        return ""
    fits, reasons = sift(Sight.of(planner.fleet, hold.request))
    words = f"no other host takes it: {Refusal(reasons=reasons)}" if reasons else "there is no other host"
    return "what it would leave is taken by others before it" if fits.any() else words


# --- in words ---------------------------------------------------------------------------------------------------------


async def told(ctx: Looks, found: NoPlan) -> NoPlan:
    """With the claims in the way, by name as far as `NAMED`, and what to do about each sort of them."""
    if not found.stuck:
        return found
    claims = await _claims(ctx, found.stuck[:NAMED])
    by_why: dict[_Why, list[str]] = {}
    for one in found.stuck[:NAMED]:
        claim = claims.get(one.uid)
        why = await _why(ctx, one, claim=claim) if claim is not None else _KEPT
        by_why.setdefault(why, []).append(_name(claim, one))
    words = [f"{', '.join(names)} ({why.words})" for why, names in by_why.items()]
    more = len(found.stuck) - NAMED
    words += [f"{more} more"] if more > 0 else []
    remedies = dict.fromkeys([*(why.remedy for why in by_why), found.remedy])
    stay = f"{counted(len(found.stuck), 'claim')} cannot go: {'; '.join(words)}"
    message = "; ".join((found.message, stay))
    return replace(found, message=message, remedy=" ".join(filter(None, remedies)), stuck=())


async def _why(ctx: Looks, one: Stuck, *, claim: Claim) -> _Why:
    if claim.deleting:
        return _GOING
    spec = claim.spec
    holder = await _holder(ctx, spec.workload.kind, project=claim.metadata.namespace or "", name=spec.workload.name)
    if holder is None or holder.uid != spec.workload.uid or holder.deleting:
        return _GOING
    if not holder.spec.moves:
        return _GANG if getattr(holder.spec, "members", 1) > 1 else _FIXED
    if not spec.movable:
        return _LATE
    if out := await _kept_out(ctx, holder):
        return _Why(f"once stopped it would not start again: {out}", "See to what it would not start for.")
    if one.nowhere:
        remedy = "Make room on other hosts, or have more take something (`bessemer host uncordon`)."
        return _Why(one.nowhere, remedy)
    return _OLD if spec.asked is None else _KEPT


async def _claims(ctx: Looks, stuck: Sequence[Stuck]) -> Mapping[str, Claim]:
    wanted, hosts = {one.uid for one in stuck}, sorted({one.host for one in stuck})
    pages = [await ctx.objects.list(Scope(kind="Claim", host=host)) for host in hosts]
    return {stored.uid: Claim.load(stored.body) for page in pages for stored in page.items if stored.uid in wanted}


def _name(claim: Claim | None, one: Stuck) -> str:
    """``Instance acme--lab/vm on h1``."""
    if claim is None:
        return f"a claim on {one.host}"
    spec = claim.spec
    return f"{spec.workload.kind} {claim.metadata.namespace}/{spec.workload.name} on {one.host}"
