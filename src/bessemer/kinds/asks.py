"""What a workload would ask of the fleet, without being there: for who plans. By kind, in `ASKS`.

It is what the kind's control side asks, by the same `wants.Want`; and what would be in the way besides room. Nothing is
taken, and nothing of the object is kept.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from bessemer.core.asking import Asker, Decision, Gang, Request
from bessemer.core.resource import Resource
from bessemer.kinds.compute.instance import control as instances
from bessemer.kinds.compute.instance.spec import Instance
from bessemer.kinds.fleet.outline import Hindrance
from bessemer.kinds.inference.endpoint import placing as endpoints
from bessemer.kinds.inference.endpoint.spec import Endpoint, wanted_of
from bessemer.kinds.inference.vetting import control as vettings
from bessemer.kinds.inference.vetting.spec import Vetting
from bessemer.kinds.jobs.job import place as jobs
from bessemer.kinds.jobs.job.spec import Job, gang_of
from bessemer.kinds.turns import asker_of
from bessemer.kinds.workload import Reads


@dataclass(frozen=True, slots=True)
class Ask:
    """``replicas`` times ``wants``; None where it is not known what would be asked for. ``beyond`` says what would be
    in the way of those that were placed, ``anywhere`` what would be on each of these hosts; ``asker`` who would ask at
    a time (epoch seconds)."""

    wants: Request | Gang | None
    replicas: int = 1
    hindrances: Sequence[Hindrance] = ()
    beyond: Callable[[Sequence[Decision]], Awaitable[Sequence[Hindrance]]] | None = None
    asker: Callable[[float], Asker] | None = None
    anywhere: Callable[[Sequence[str]], Awaitable[Sequence[Hindrance]]] | None = None


@dataclass(frozen=True, slots=True)
class Asks:
    """What a workload of the class ``kind`` would ask for is what ``of`` answers."""

    kind: type[Resource[Any, Any]]
    of: Callable[[Reads, Any], Awaitable[Ask]]


async def _instance(ctx: Reads, instance: Instance) -> Ask:
    found = await instances.wanted(ctx, instance)
    return Ask(found.request, 1, found.hindrances, asker=lambda now: asker_of(instance, terms=found.terms, now=now))


async def _endpoint(ctx: Reads, endpoint: Endpoint) -> Ask:
    found = await endpoints.wanted(ctx, endpoint)
    return Ask(
        found.request,
        wanted_of(endpoint),
        found.hindrances,
        asker=lambda now: asker_of(endpoint, terms=found.terms, now=now),
    )


async def _vetting(ctx: Reads, vetting: Vetting) -> Ask:
    found = await vettings.wanted(ctx, vetting)
    return Ask(found.request, 1, found.hindrances, asker=lambda now: asker_of(vetting, terms=found.terms, now=now))


async def _job(ctx: Reads, job: Job) -> Ask:
    found = await jobs.wanted(ctx, job)
    gang = gang_of(job, member=found.request) if found.request is not None else None
    return Ask(
        gang,
        1,
        found.hindrances,
        lambda members: jobs.reached(ctx, job, members=members),
        lambda now: jobs.asker_of(job, terms=found.terms, now=now),
        lambda hosts: jobs.unreached(ctx, job, hosts=hosts),
    )


ASKS: Mapping[str, Asks] = MappingProxyType(
    {
        one.kind.KIND: one
        for one in (
            Asks(Instance, _instance),
            Asks(Endpoint, _endpoint),
            Asks(Vetting, _vetting),
            Asks(Job, _job),
        )
    }
)
"""The kinds that hold Claims of their own."""
