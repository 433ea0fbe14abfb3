"""The places of an Endpoint's replicas: what each asks of the fleet and of its host, and why there are not more.

Replicas are taken one by one, so that some serve while others wait for a place. An intent is frozen when it is taken:
deleting the Model or the Flavor touches nothing that runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bessemer.core.asking import Refusal
from bessemer.core.errors import QuotaExceeded, Taken, Walled
from bessemer.core.units import parse_bytes
from bessemer.kinds import turns, workload
from bessemer.kinds.context import Context
from bessemer.kinds.fleet.claim import Claim
from bessemer.kinds.fleet.flavor import Flavor
from bessemer.kinds.fleet.outline import Hindrance
from bessemer.kinds.inference.endpoint.engines import (
    Engine,
    beyond,
    engine_of,
    files_of,
)
from bessemer.kinds.inference.endpoint.revisions import MODEL_OF, marks_of, name_of, revision_of, template_of
from bessemer.kinds.inference.endpoint.spec import (
    Endpoint,
    EndpointIntent,
    takes_adapters,
)
from bessemer.kinds.inference.model import Weights
from bessemer.kinds.turns import Hold
from bessemer.kinds.wants import Want, again, want
from bessemer.kinds.workload import HostView

GROUP = 16
"""Replicas that one turn takes at most; the next turn goes on, so that a large endpoint holds up nobody."""

_ASK = "Ask an administrator of the platform, or make another endpoint."


_NONE_OF_ITS_OWN = Hindrance(
    reason="NoReplicas",
    message="it has no replicas of its own: others answer for it",
    remedy="Ask for the endpoints that answer for it.",
)


@dataclass(frozen=True, slots=True)
class Seen:
    """What one turn saw: the claims that stand, their hosts, and why there are not more. ``moved`` are those that stay
    until another answers elsewhere; ``coming`` are numbers for these others, ``missing`` for what is wanted besides."""

    claims: Sequence[Claim]
    hosts: Mapping[str, HostView]
    hold: Hold | None = None
    moved: Sequence[Claim] = ()
    coming: Sequence[int] = ()
    missing: Sequence[int] = ()


async def wanted(ctx: workload.Reads, endpoint: Endpoint) -> Want[Weights]:
    """What a replica asks of the fleet, and what keeps it from asking."""
    if endpoint.spec.form != "replicas":
        terms = await workload.terms_of(ctx, endpoint.metadata.namespace or "")
        return Want(terms, None, None, None, [_NONE_OF_ITS_OWN])
    found = await want(ctx, endpoint, part=Weights, name=endpoint.spec.model, isolation=True)
    engine = await engine_of(ctx, endpoint, model=found.part)
    request = replace(found.request, engine=engine.name) if found.request is not None else None
    hindrances = [*found.hindrances, *beyond(endpoint, found, engine=engine)]
    return replace(found, request=request, hindrances=hindrances)


async def take(ctx: Context, endpoint: Endpoint, *, seen: Seen) -> Hold | None:
    """Take places for the first of the missing replicas; None when all of them have one now. Those that come for others
    take the places that are kept for them, or none."""
    asks = await wanted(ctx, endpoint)
    flavor, model, terms = asks.flavor, asks.part, asks.terms
    if asks.hindrances or flavor is None or model is None or asks.request is None:
        found = asks.hindrances[0]
        return Hold(found.reason, found.message, again(found), remedy=found.remedy)
    asker, moves = turns.asker_of(endpoint, terms=terms, now=ctx.clock.now()), endpoint.spec.moves
    intent = intent_of(endpoint, flavor=flavor, model=model, engine=await engine_of(ctx, endpoint, model=model))
    intent, owner = alike(intent, endpoint, claims=seen.claims), owner_of(model, endpoint, claims=seen.claims)
    make = workload.Make(flavor, intent.dump(), terms, asker, moves, *marks_of(endpoint, owner=owner))
    missing, coming = seen.missing, seen.coming
    for number in [*coming, *missing][:GROUP]:
        kept = ctx.fleet.moving.place(endpoint.uid, asks.request) if number in coming else None
        if number in coming and kept is None:
            continue
        decision = kept or ctx.fleet.decide(asks.request, asker)
        try:
            if isinstance(decision, Refusal):
                await turns.make_room(ctx, decision, asker=asker)
                waiting = turns.refused(endpoint.status, decision, now=ctx.clock.now())
                reason = "Queued" if decision.queued else "Unschedulable"
                return Hold(reason, str(decision), remedy=decision.cheapest, waiting=waiting)
            await workload.take(ctx, endpoint, decision=decision, make=make, replica=number)
        except QuotaExceeded as error:
            return Hold("QuotaExceeded", error.message, 30.0, remedy="Delete something, or ask for a higher quota.")
        except Walled as error:
            return Hold("TenantWalled", error.message, 30.0, remedy=_ASK)
        except Taken as error:
            waiting, pause = turns.lost(endpoint.status, now=ctx.clock.now())
            return Hold("Taken", error.message, pause, remedy=turns.LOST_REMEDY, waiting=waiting)
    rest = len(coming) + len(missing) - GROUP
    return Hold("Placing", f"{rest} more replicas are being placed", 0.0) if rest > 0 else None


def intent_of(endpoint: Endpoint, *, flavor: Flavor, model: Weights, engine: Engine) -> EndpointIntent:
    """What each replica's host side is asked for, frozen at this moment."""
    return EndpointIntent(
        model=model.status.digest,
        alias=endpoint.metadata.name,
        slots=endpoint.spec.slots,
        context_tokens=endpoint.spec.context_tokens,
        cores_milli=flavor.spec.cores * 1000,
        memory_bytes=parse_bytes(flavor.spec.memory),
        needs_bytes=parse_bytes(model.spec.memory),
        engine=engine.name,
        arguments=endpoint.spec.engine.arguments,
        adapters=list(engine.adapters),
        files=files_of(model),
        task=endpoint.spec.task,
    )


def owner_of(model: Weights, endpoint: Endpoint, *, claims: Sequence[Claim]) -> str:
    """Whose the content is that `alike` gives: the project's that has the model, or "" for the platform."""
    same = _same(endpoint, claims)
    return (same.metadata.labels.get(MODEL_OF) if same is not None else model.metadata.namespace) or ""


def _same(endpoint: Endpoint, claims: Sequence[Claim]) -> Claim | None:
    """One that is of the revision which is wanted now."""
    name = name_of(template_of(endpoint))
    return next((claim for claim in claims if revision_of(claim, endpoint) == name), None)


def alike(intent: EndpointIntent, endpoint: Endpoint, *, claims: Sequence[Claim]) -> EndpointIntent:
    """The intent with the content that replicas of its revision have: a Model that has changed since is another
    revision's, when one is asked for."""
    same = _same(endpoint, claims)
    if same is None:
        return intent
    other = EndpointIntent.model_validate(same.spec.intent)
    kept: dict[str, Any] = {"model": other.model, "files": other.files, "engine": other.engine}
    if not takes_adapters(endpoint.spec):
        kept["adapters"] = other.adapters
    return intent.model_copy(update=kept)
