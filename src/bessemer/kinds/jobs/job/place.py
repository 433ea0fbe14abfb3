"""Finding places for a gang, and taking all of them in one transaction or none.

What each member is told of the others is frozen in its Claim, so nothing has to be looked up while they run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import orjson

from bessemer.core.asking import Asker, Decision, GangDecision, Refusal
from bessemer.core.clock import epoch
from bessemer.core.errors import Conflict, QuotaExceeded, Taken, Walled
from bessemer.core.hosts import Inventory
from bessemer.core.ports import Scope, Stored
from bessemer.core.units import parse_bytes
from bessemer.drivers.jobs.protocol import SCRIPT
from bessemer.kinds import turns, workload
from bessemer.kinds.context import Context
from bessemer.kinds.fleet.flavor import Flavor
from bessemer.kinds.fleet.host import Host
from bessemer.kinds.fleet.outline import Hindrance
from bessemer.kinds.jobs.job import ranks
from bessemer.kinds.jobs.job.spec import PREFIX, Job, JobIntent, gang_of
from bessemer.kinds.turns import Hold
from bessemer.kinds.wants import Want, again, want

_ADDRESS = "Correct spec.subnet, or give the host an address: its agent reports what it finds."
_MORE = "Delete something, or ask for a higher quota."
_ASK = "Ask an administrator of the platform, or make another job."


async def wanted(ctx: workload.Reads, job: Job) -> Want[Any]:
    """What a member asks of the fleet, and what keeps the job from asking."""
    return await want(ctx, job, isolation=True)


async def reached(ctx: workload.Reads, job: Job, *, members: Sequence[Decision]) -> Sequence[Hindrance]:
    """What keeps members at these places from reaching each other."""
    found = ranks.world_of(members, await _reports(ctx, members), subnet=job.spec.subnet, port=ranks.FIRST_PORT)
    return [Hindrance(reason="HostUnaddressed", message=found, remedy=_ADDRESS)] if isinstance(found, str) else []


async def unreached(ctx: workload.Reads, job: Job, *, hosts: Sequence[str]) -> Sequence[Hindrance]:
    """What would keep its members from reaching each other on any of these hosts: none has an address that it asks
    for."""
    for name in hosts if job.spec.subnet else ():
        report = await _report(ctx, name)
        if report is not None and ranks.address_of(report.addresses, subnet=job.spec.subnet):
            return []
    if not hosts or not job.spec.subnet:
        return []
    message = f"of {len(hosts)} hosts that could take a member none has an address in {job.spec.subnet}"
    return [Hindrance(reason="HostUnaddressed", message=message, remedy=_ADDRESS)]


async def place(ctx: Context, job: Job, *, attempt: int) -> Hold | None:
    """Take a place for each member; None when all have one."""
    asks = await wanted(ctx, job)
    flavor, terms = asks.flavor, asks.terms
    if asks.hindrances or flavor is None or asks.request is None:
        found = asks.hindrances[0]
        return Hold(found.reason, found.message, again(found), remedy=found.remedy)
    now = ctx.clock.now()
    asker = asker_of(job, terms=terms, now=now)
    decision = ctx.fleet.decide_gang(gang_of(job, member=asks.request), asker)
    if isinstance(decision, Refusal):
        if await _addressed(ctx, job, hosts=decision.stops.hosts if decision.stops else ()):
            try:
                await turns.make_room(ctx, decision, asker=asker, claims=job.spec.members)
            except QuotaExceeded as error:
                return Hold("QuotaExceeded", error.message, 30.0, remedy=_MORE)
        waiting = turns.refused(job.status, decision, now=now)
        reason = "Queued" if decision.queued else "Unschedulable"
        return Hold(reason, str(decision), remedy=decision.cheapest, waiting=waiting)
    world = await _world(ctx, job, decision=decision, attempt=attempt)
    if isinstance(world, str):
        return Hold("HostUnaddressed", world, 30.0, remedy=_ADDRESS)
    intents = intents_of(job, flavor=flavor, world=world, decision=decision, attempt=attempt, now=int(now))
    above = {"leaves": float(decision.leaves), "spines": float(decision.spines)}
    parts = {
        rank: (
            replace(member, score={**decision.score, **member.score, **above}),
            workload.Make(flavor, intents[rank].dump(), terms, asker, job.spec.moves),
        )
        for rank, member in enumerate(decision.members)
    }
    try:
        await workload.take_all(ctx, job, parts=parts)
    except QuotaExceeded as error:
        return Hold("QuotaExceeded", error.message, 30.0, remedy=_MORE)
    except Walled as error:
        return Hold("TenantWalled", error.message, 30.0, remedy=_ASK)
    except Taken as error:
        waiting, pause = turns.lost(job.status, now=now)
        return Hold("Taken", error.message, pause, remedy=turns.LOST_REMEDY, waiting=waiting)
    except Conflict as error:
        return Hold("NameHeld", error.message, 2.0)  # members of an earlier job of this name are still cleared away
    return None


def asker_of(job: Job, *, terms: workload.Terms, now: float) -> Asker:
    """Who asks, and when it will have ended at the latest. Pure."""
    deadline = job.spec.deadline_seconds
    began = epoch(job.status.started_at) if job.status.started_at else now
    ends = None if deadline is None else int(began) + deadline
    return replace(turns.asker_of(job, terms=terms, now=now), ends=ends)


def intents_of(
    job: Job, *, flavor: Flavor, world: ranks.World, decision: GangDecision, attempt: int, now: int
) -> list[JobIntent]:
    """What each member's host side is asked for, by rank, frozen at this moment. Pure."""
    spec = job.spec
    words = ["/bin/sh", SCRIPT, *spec.args] if spec.script else [spec.command, *spec.args]
    started = int(epoch(job.status.started_at)) if job.status.started_at else now
    same = JobIntent(
        words=words,
        script=spec.script,
        hosts=world.hostfile,
        cores_milli=flavor.spec.cores * 1000,
        memory_bytes=parse_bytes(flavor.spec.memory),
        attempt=attempt,
        started=started,
        ends=0 if spec.deadline_seconds is None else started + spec.deadline_seconds,
    )
    made = []
    for rank, member in enumerate(decision.members):
        told = ranks.environment(world, rank, devices=member.devices)
        ours = {**told, f"{PREFIX}JOB": job.metadata.name, f"{PREFIX}ATTEMPT": str(attempt)}
        address = told[f"{PREFIX}ADDRESS"]
        made.append(same.model_copy(update={"env": {**spec.env, **ours}, "address": address}))
    return made


async def _world(ctx: Context, job: Job, *, decision: GangDecision, attempt: int) -> ranks.World | str:
    """The gang as these decisions make it, with a port that no other gang has where rank 0 is."""
    found = await _reports(ctx, decision.members)
    taken = await _ports(ctx, decision.members[0].host)
    port = ranks.port_of(job.uid, attempt, taken=taken)
    return ranks.world_of(decision.members, found, subnet=job.spec.subnet, port=port)


async def _reports(ctx: workload.Reads, members: Sequence[Decision]) -> dict[str, Inventory | None]:
    """What the agents of their hosts found."""
    return {name: await _report(ctx, name) for name in sorted({member.host for member in members})}


async def _report(ctx: workload.Reads, host: str) -> Inventory | None:
    found = await workload.read(ctx, Host, name=host)
    return found.status.report if found is not None else None


async def _addressed(ctx: Context, job: Job, *, hosts: Sequence[str]) -> bool:
    """Whether members there could reach each other: nobody is stopped for a place that would not be taken."""
    if not job.spec.subnet and len(hosts) < 2:
        return True
    reports = [await _report(ctx, name) for name in hosts]
    return all(r is not None and ranks.address_of(r.addresses, subnet=job.spec.subnet) for r in reports)


async def _ports(ctx: Context, host: str) -> frozenset[int]:
    """The ports of the gangs that have a member on the host."""
    page = await ctx.objects.list(Scope(kind="Claim", host=host))
    return frozenset(map(_port, page.items)) - {0}


def _port(claim: Stored) -> int:
    """The port of the gang that a Claim is of; 0 where it is of none."""
    spec = orjson.loads(claim.body)["spec"]
    if spec["workload"]["kind"] != Job.KIND:
        return 0
    return int(spec["intent"].get("env", {}).get("MASTER_PORT", 0))
