"""What would be moved where: made upon a fork of the fleet's arrays, in the words of a status.

Whoever does not let its claims be moved any more is asked for the plan that is made, and left out of the next one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bessemer.core.asking import Decision, Request
from bessemer.core.ports import Scope
from bessemer.kinds import workload
from bessemer.kinds.context import Looks
from bessemer.kinds.fleet.claim import Claim
from bessemer.kinds.fleet.consolidation.obstacles import (
    NoPlan,
    counted,
    how,
    impossible,
    staying,
    stuck_in,
    told,
)
from bessemer.kinds.fleet.consolidation.spec import Consolidation, ConsolidationStatus, Empty, Open, Step
from bessemer.kinds.fleet.flavor import Flavor
from bessemer.kinds.fleet.host import Host
from bessemer.kinds.fleet.moved import KeptPlace
from bessemer.kinds.fleet.moving import Fork
from bessemer.kinds.workload import Reads, Terms
from bessemer.placement import Hold
from bessemer.placement.fleet import set_open
from bessemer.placement.moves.emptying import emptiest
from bessemer.placement.moves.holdings import Holdings
from bessemer.placement.moves.opening import by_time, open_places
from bessemer.placement.moves.plan import Move, Planner
from bessemer.placement.moves.trial import Trial
from bessemer.placement.policies import Floats

_ROUNDS = 4
"""Plans that are made at most, each without those whose owners refuse the one before."""


@dataclass(frozen=True, slots=True)
class _Found:
    """A plan in the words of placement. ``milli`` are thousandths of devices that come free together."""

    moves: Sequence[Move]
    hosts: Sequence[str]
    places: int = 0
    there: int = 0
    milli: int = 0


async def planned(ctx: Looks, asked: Consolidation) -> ConsolidationStatus | NoPlan:
    """A plan for it, as its status has it. Raises Unavailable until the fleet has been read."""
    request = await opening(ctx, asked.spec.open) if asked.spec.open is not None else None
    if isinstance(request, NoPlan):
        return request
    if asked.spec.empty is not None and (trouble := await _unknown(ctx, asked.spec.empty)) is not None:
        return trouble
    refused = frozenset[str]()
    for _ in range(_ROUNDS):
        # Of the moment: whoever was read in between may have gone, and a fork is none once a host is set.
        found = _found(ctx.fleet.forked(), asked, request=request, refused=refused, now=int(ctx.clock.now()))
        # Where there is none, who would refuse to go is told together with what is in the way.
        moves = found.going if isinstance(found, NoPlan) else found.moves
        claims = await _claims(ctx, moves)
        steps = [_step(move, claims[move.uid], now=ctx.clock.now()) for move in moves if move.uid in claims]
        more = {step.claim_uid for step in steps if not await how(ctx, step)}
        more |= {move.uid for move in moves} - claims.keys()
        if not more:
            return await told(ctx, found) if isinstance(found, NoPlan) else _status(asked.status, found, steps=steps)
        refused |= more
    return NoPlan("NoPlan", "claims come and go, or their owners refuse: it is tried again", "Wait a moment.")


async def opening(ctx: Reads, wanted: Open) -> Request | NoPlan:
    """What is asked for each place that is to be open, by nobody in particular."""
    flavor = await workload.read(ctx, Flavor, name=wanted.flavor)
    if flavor is None:
        return NoPlan("FlavorNotFound", f"there is no Flavor {wanted.flavor}", "Create it, or name another.")
    request = workload.request_of(Terms(tenant=""), flavor.spec, tolerations=wanted.tolerations)
    return replace(request, bearable=None)


def legal(fork: Fork, asked: Consolidation, *, request: Request | None) -> bool:
    """Whether the plan that is shown could be carried out as the fleet is now, and would come to what it says."""
    with Trial(fork.fleet) as trial:
        for step in asked.status.steps:
            hold = fork.fleet.held.of(step.claim_uid)
            if hold is None or hold.host != step.source or not hold.tenure.restartable:
                return False
            trial.drop(step.claim_uid)
            decision = step.place.decision(hold.request)
            if not _takes(fork, decision, trial=trial):
                return False
            trial.hold(step.claim_uid, Hold.of(decision))
        if asked.spec.empty is not None and any(fork.fleet.held.at(host) for host in asked.status.hosts):
            return False
        return request is None or open_now(fork, request, count=asked.status.places) >= asked.status.places


def open_now(fork: Fork, request: Request, *, count: int) -> int:
    """How many places there are for it at once, ``count`` at most."""
    return len(
        open_places(Planner(fork.fleet, fork.place, holdings=fork.holdings), request, count=count, most=0).places
    )


def target(fork: Fork, step: Step, *, hosts: Sequence[str]) -> Decision | None:
    """Where a claim goes as the fleet is now: where it was to go, if that is free, or else elsewhere, but for the
    ``hosts`` that are opened or emptied: in the arrays they may still take somebody."""
    hold = fork.fleet.held.of(step.claim_uid)
    if hold is None or hold.request is None:
        return None
    wanted = step.place.decision(hold.request)
    if _takes(fork, wanted, trial=Trial(fork.fleet)):
        return wanted
    for host in hosts:
        set_open(fork.fleet, host, schedulable=False)
    return fork.place(hold.request)


def _takes(fork: Fork, decision: Decision, *, trial: Trial) -> bool:
    """Whether the host takes anything new, and has what the decision wants."""
    fleet, row = fork.fleet, fork.fleet.row(decision.host)
    return row is not None and bool(fleet.schedulable[row] and fleet.reachable[row]) and trial.free(decision)


def _found(
    fork: Fork, asked: Consolidation, *, request: Request | None, refused: frozenset[str], now: int
) -> _Found | NoPlan:
    def prices(holdings: Holdings) -> Floats:
        found = by_time(now)(holdings)
        for slot in np.flatnonzero(np.isfinite(found)).tolist() if refused else ():
            if holdings.held(slot)[0] in refused:
                found[slot] = np.inf
        return found

    planner = Planner(fork.fleet, fork.place, prices=prices, holdings=fork.holdings)
    spec = asked.spec
    if request is not None and spec.open is not None:
        return _opened(planner, request, wanted=spec.open, most=spec.max_moves)
    assert spec.empty is not None
    return _emptied(planner, spec.empty, most=spec.max_moves)


def _opened(planner: Planner, request: Request, *, wanted: Open, most: int) -> _Found | NoPlan:
    found = open_places(planner, request, count=wanted.count, most=most)
    if len(found.places) < wanted.count:
        if not found.places and (never := impossible(planner, request, flavor=wanted.flavor)) is not None:
            return never
        places = f"{len(found.places)} of {counted(wanted.count, 'place')}"
        message = f"{places} of Flavor {wanted.flavor} can be had by {counted(most, 'move')}"
        remedy = "Raise spec.maxMoves (`--max-moves`), ask for fewer places, or make room on other hosts."
        return NoPlan("NoPlan", message, remedy, staying(planner, request))
    milli = sum(len(place.devices) * place.device_milli for place in found.places[found.there :])
    return _Found(found.moves, found.hosts, len(found.places), found.there, milli)


def _emptied(planner: Planner, wanted: Empty, *, most: int) -> _Found | NoPlan:
    if wanted.count:
        best = emptiest(planner, count=wanted.count, most=most)
        if best is None:
            message = f"no {counted(wanted.count, 'host')} can be emptied by {counted(most, 'move')}"
            remedy = "Raise spec.maxMoves (`--max-moves`), ask for fewer hosts, or make room on other hosts."
            return NoPlan("NoPlan", message, remedy, staying(planner))
        hosts, plan = best.hosts, best.plan
    else:
        hosts, plan = tuple(wanted.hosts), planner.emptied(wanted.hosts)
    if plan.stuck:
        message = f"{', '.join(hosts)} cannot be emptied"
        return NoPlan("NoPlan", message, "", stuck_in(planner, plan, hosts=hosts), plan.moves)
    if len(plan.moves) > most:
        message = f"it takes {counted(len(plan.moves), 'move')}, and spec.maxMoves is {most}"
        return NoPlan("NoPlan", message, "Raise spec.maxMoves (`--max-moves`), or empty fewer hosts.")
    rows = [row for row in map(planner.fleet.row, hosts) if row is not None]
    return _Found(plan.moves, hosts, milli=sum(len(planner.fleet.devices(row)) for row in rows) * 1000)


async def _unknown(ctx: Looks, wanted: Empty) -> NoPlan | None:
    """All hosts that are not there, or all that are silent."""
    found = {name: await workload.read(ctx, Host, name=name) for name in wanted.hosts}
    if missing := [name for name, host in found.items() if host is None]:
        remedy = "`bessemer get hosts` lists those that there are."
        return NoPlan("HostNotFound", f"there is no Host {', '.join(missing)}", remedy)
    if silent := [name for name, host in found.items() if host is not None and not host.reachable]:
        remedy = "Bring its agent back, or fence it: then its claims are placed anew by themselves."
        return NoPlan("HostSilent", f"Host {', '.join(silent)} is silent: nothing can be stopped there", remedy)
    return None


async def _claims(ctx: Looks, moves: Sequence[Move]) -> Mapping[str, Claim]:
    wanted = {move.uid for move in moves}
    pages = [await ctx.objects.list(Scope(kind="Claim", host=host)) for host in sorted({m.source.host for m in moves})]
    return {stored.uid: Claim.load(stored.body) for page in pages for stored in page.items if stored.uid in wanted}


def _step(move: Move, claim: Claim, *, now: float) -> Step:
    spec, milli = claim.spec, claim.spec.milli_devices
    lost = 0 if spec.movable == "Replace" else milli * max(0, int(now) - spec.since) // 1000
    return Step(
        project=claim.metadata.namespace or "",
        workload_kind=spec.workload.kind,
        workload=spec.workload.name,
        workload_uid=spec.workload.uid,
        claim=claim.metadata.name,
        claim_uid=claim.uid,
        source=move.source.host,
        target=move.target.host,
        place=KeptPlace.of(move.target),
        how=spec.movable,
        devices_milli=milli,
        lost_device_seconds=lost,
    )


def _status(status: ConsolidationStatus, found: _Found, *, steps: Sequence[Step]) -> ConsolidationStatus:
    update = {
        "hosts": sorted(found.hosts),
        "places": found.places,
        "there": found.there,
        "devices_milli": found.milli,
        "lost_device_seconds": sum(step.lost_device_seconds for step in steps),
        "moves": len(steps),
        "moved": 0,
        "steps": list(steps),
    }
    return status.model_copy(update=update)
