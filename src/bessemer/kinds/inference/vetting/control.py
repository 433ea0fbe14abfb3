"""The Vetting on the control side: a place as a replica of an Endpoint has one, and what its host says, folded.

What was measured stands in the status before the Claim is let go; then the Claim goes, and nothing is held for nothing.
One whose engine does not come up, or that takes longer than it may, is given up the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from bessemer.core.asking import Refusal
from bessemer.core.clock import rfc3339
from bessemer.core.errors import QuotaExceeded, Taken, Walled
from bessemer.core.resource import Done, Fail, Key, Outcome, Wait
from bessemer.core.units import parse_bytes
from bessemer.kinds import turns, workload
from bessemer.kinds.context import Context
from bessemer.kinds.fleet.claim import Claim
from bessemer.kinds.fleet.flavor import FlavorSpec
from bessemer.kinds.fleet.outline import Hindrance
from bessemer.kinds.inference import models
from bessemer.kinds.inference.endpoint.engines import beyond, engine_of
from bessemer.kinds.inference.endpoint.placing import intent_of
from bessemer.kinds.inference.endpoint.spec import Endpoint, EndpointSpec
from bessemer.kinds.inference.footprint import footprint, idle_bytes, told
from bessemer.kinds.inference.model import Weights
from bessemer.kinds.inference.vetting import pricing
from bessemer.kinds.inference.vetting.host import measured
from bessemer.kinds.inference.vetting.report import Check, knee
from bessemer.kinds.inference.vetting.shape import SHAPES
from bessemer.kinds.inference.vetting.spec import (
    PlanIntent,
    Vetting,
    VettingIntent,
    VettingPhase,
    VettingSpec,
    VettingStatus,
)
from bessemer.kinds.wants import Want, again, want
from bessemer.kinds.workload import HostView

RESTARTS_MAX = 4
"""An engine that ended so often before it answered is given up."""

DEADLINES: Mapping[str, float] = {
    "Pending": 600.0,
    "Starting": 3600.0,
    "Measuring": 3600.0,
    "Releasing": 300.0,
    "Unknown": 300.0,
    "Terminating": 300.0,
}

REMEDIES: Mapping[str, str] = {
    "Pending": "Create what the message names, or delete the vetting.",
    "Starting": "Look at the engine's log; a larger flavor helps against want of memory.",
    "Measuring": "Delete the vetting to give its place back.",
    "Releasing": "Bring the host's agent back, or fence the host to give its devices away.",
    "Failed": "Mend what the message names, and make another vetting.",
    "Unknown": "Bring the host's agent back, or fence the host to have it begun anew.",
    "Terminating": "Bring the host's agent back, or fence the host to give its devices away.",
}


@dataclass(frozen=True, slots=True)
class _Given:
    """Why it is given up."""

    reason: str
    message: str


async def reconcile(ctx: Context, vetting: Vetting) -> Outcome:
    parts = (Key("Flavor", "", vetting.spec.flavor), *models.keys_of(vetting.spec.model))
    claim = await workload.claim_of(ctx, vetting)
    over = vetting.status.finished_at is not None
    ctx.parts.note(vetting.key, () if over else parts, waits=claim is None and not over)
    if claim is None:
        return _ended(vetting) if over else await _place(ctx, vetting)
    if claim.spec.workload.uid != vetting.uid:
        message = f"{claim.key} belongs to an earlier vetting of this name"
        return _wait(_blank(vetting, message), "Pending", reason="NameHeld", message=message, again=2.0)
    host = await workload.host_view(ctx, claim.spec.host)
    if over:
        waits = await workload.let_go(ctx, claim, host=host)
        return _leaving(vetting, waits) if waits else _ended(vetting)
    now = ctx.clock.now()
    if host.fenced or claim.deleting or claim.status.phase == "Gone" or turns.due(claim, now=now):
        waits = await workload.let_go(ctx, claim, host=host)
        message = waits or f"Host {host.name} no longer holds it; it begins anew elsewhere"
        return _wait(_blank(vetting, message), "Pending", reason="Replacing", message=message, again=1.0)
    claim = next(iter(await turns.spared(ctx, [claim])), claim)
    return turns.told(await _fold(ctx, vetting, claim=claim, host=host), [claim], now=now)


async def finalize(ctx: Context, vetting: Vetting) -> Outcome:
    """Let the claim go."""
    claim = await workload.claim_of(ctx, vetting)
    waits, silent = "", False
    if claim is not None and claim.spec.workload.uid == vetting.uid:
        host = await workload.host_view(ctx, claim.spec.host)
        waits, silent = await workload.let_go(ctx, claim, host=host), not host.reachable
    if not waits:
        ctx.parts.forget(vetting.key)
        return Done()
    reason = "HostSilent" if silent else "Terminating"
    return _wait(vetting.status, "Terminating", reason=reason, message=waits, again=10.0)


def as_endpoint(vetting: Vetting) -> Endpoint:
    """The Endpoint of one replica that it is measured as."""
    spec = vetting.spec
    return Endpoint(
        metadata=vetting.metadata,
        spec=EndpointSpec(
            model=spec.model,
            flavor=spec.flavor,
            engine=spec.engine,
            slots=spec.slots,
            context_tokens=spec.context_tokens,
            tolerations=spec.tolerations,
            task=spec.task,
        ),
    )


async def wanted(ctx: workload.Reads, vetting: Vetting) -> Want[Weights]:
    """What it asks of the fleet, and what keeps it from asking."""
    found = await want(ctx, vetting, part=Weights, name=vetting.spec.model, isolation=True)
    endpoint = as_endpoint(vetting)
    engine = await engine_of(ctx, endpoint, model=found.part)
    return replace(found, hindrances=[*found.hindrances, *beyond(endpoint, found, engine=engine)])


async def _place(ctx: Context, vetting: Vetting) -> Outcome:
    """Find a host and take it."""
    asks = await wanted(ctx, vetting)
    flavor, model, terms = asks.flavor, asks.part, asks.terms
    if asks.hindrances or flavor is None or model is None or asks.request is None:
        return _hindered(vetting, asks.hindrances[0])
    asker = turns.asker_of(vetting, terms=terms, now=ctx.clock.now())
    decision = ctx.fleet.decide(asks.request, asker)
    endpoint = as_endpoint(vetting)
    engine = await engine_of(ctx, endpoint, model=model)
    replica = intent_of(endpoint, flavor=flavor, model=model, engine=engine)
    intent = VettingIntent.model_validate({**replica.dump(), "plan": _plan(vetting).dump()})
    try:
        if isinstance(decision, Refusal):
            await turns.make_room(ctx, decision, asker=asker)
            waiting = turns.refused(vetting.status, decision, now=ctx.clock.now())
            reason = "Queued" if decision.queued else "Unschedulable"
            status = _blank(vetting, str(decision), **waiting)
            return _wait(status, "Pending", reason=reason, message=str(decision), again=10.0, remedy=decision.cheapest)
        make = workload.Make(flavor, intent.dump(), terms, asker, vetting.spec.moves)
        await workload.take(ctx, vetting, decision=decision, make=make)
    except QuotaExceeded as error:
        remedy = "Delete something, or ask for a higher quota."
        return _held(vetting, "QuotaExceeded", message=error.message, again=30.0, remedy=remedy)
    except Walled as error:
        remedy = "Ask an administrator of the platform, or make another vetting."
        return _held(vetting, "TenantWalled", message=error.message, again=30.0, remedy=remedy)
    except Taken as error:
        waiting, pause = turns.lost(vetting.status, now=ctx.clock.now())
        return _held(vetting, "Taken", message=error.message, again=pause, remedy=turns.LOST_REMEDY, **waiting)
    message = f"a place on Host {decision.host} is taken"
    status = _blank(vetting, message, claim=workload.claim_key(vetting).name, host=decision.host, fake=decision.fake)
    status = status.model_copy(
        update={"estimate_bytes": _estimate(vetting, model, engine=engine.name, flavor=flavor.spec)}
    )
    return _wait(status, "Starting", reason="Placed", message=message, again=30.0)


def _estimate(vetting: Vetting, model: Weights, *, engine: str, flavor: FlavorSpec) -> int:
    """Memory by what its files say, prompts of idle slots among it; 0 where they do not say enough."""
    spec, facts = vetting.spec, model.status.facts
    arguments = told(spec.engine.arguments, flavor, engine=engine, task=spec.task, context=spec.context_tokens)
    made = footprint(facts, engine=engine, arguments=arguments, task=spec.task) if facts is not None else None
    if made is None:
        return 0
    # What embeds keeps no prompts: the next text is another.
    idle = idle_bytes(parse_bytes(flavor.memory), engine=engine, arguments=arguments) if spec.task != "embed" else 0
    return made.needs(slots=spec.slots, context=spec.context_tokens) + idle


def _plan(vetting: Vetting) -> PlanIntent:
    load, target = vetting.spec.load, vetting.spec.target
    inputs, outputs = SHAPES[load.shape]
    return PlanIntent(
        seed=vetting.metadata.name,
        inputs=load.input_tokens or list(inputs),
        outputs=load.output_tokens or list(outputs),
        shared_percent=load.shared_percent,
        rates=load.rates,
        seconds=load.seconds,
        ttft_ms=target.ttft_ms,
        inter_token_ms=target.inter_token_ms,
        end_ms=target.end_ms,
    )


async def _fold(ctx: Context, vetting: Vetting, *, claim: Claim, host: HostView) -> Outcome:
    """The status out of its claim's and its host's, and what is to be said at the end."""
    said, known = claim.status, measured(claim.status)
    had = vetting.status.estimate_bytes
    update: dict[str, Any] = {
        "claim": claim.metadata.name,
        "host": claim.spec.host,
        "fake": claim.spec.fake,
        "checks": known.checks,
        "points": known.points,
        "memory_bytes": known.memory_bytes,
        "progress_percent": _percent(claim),
        "message": said.message,
        "estimate_bytes": had,
        **turns.NOT_WAITING,
    }
    status = vetting.status.model_copy(update=update)
    if not host.reachable:
        return _wait(status, "Unknown", reason="HostSilent", message=host.message, again=60.0)
    if known.done:
        return await _finished(ctx, vetting, status=status, claim=claim)
    given = _given_up(vetting.spec, claim, now=ctx.clock.now())
    if given is not None:
        return _over(status, now=ctx.clock.now(), given=given)
    phase: VettingPhase = "Measuring" if said.phase == "Running" else "Starting"
    message = said.message or f"Host {claim.spec.host} has been asked"
    # The deadline is looked at by itself: a host that says nothing new wakes nobody.
    return _wait(status, phase, reason=said.reason or phase, message=message, again=30.0)


async def _finished(ctx: Context, vetting: Vetting, *, status: VettingStatus, claim: Claim) -> Outcome:
    """All is measured: say what came of it, in money too."""
    target, known = vetting.spec.target, measured(claim.status)
    bounded = any(most is not None for most in (target.ttft_ms, target.inter_token_ms, target.end_ms))
    best = knee(status.points, bounded=bounded)
    checks = [one for one in status.checks if one.name != "target"]
    if best is None:
        seen = "at no rate are all answered in time" if bounded else "at no rate are all answered"
        checks.append(Check(name="target", verdict="Failed", seen=seen))
    else:
        checks.append(Check(name="target", verdict="Passed", seen=f"at {best.rate:g} requests a second"))
    status = status.model_copy(update={"checks": checks, "finished_at": rfc3339(ctx.clock.now())})
    if best is not None and known.alone is not None:
        cost = await pricing.hour_of(ctx, claim)
        try:
            found = pricing.found(vetting, claim, best=best, alone=known.alone, cost=cost, status=status)
        except (ValueError, ArithmeticError):
            # Its host may be anybody's, and nothing is held for what no engine does.
            wrong = _Given("MeasuredNonsense", "what its host says that it measured cannot be")
            return _over(status, now=ctx.clock.now(), given=wrong)
        status = status.model_copy(update=found)
    failed = [one.name for one in checks if one.verdict == "Failed" and one.name not in vetting.spec.may_fail]
    given = _Given("ChecksFailed", f"measured; it failed: {', '.join(failed)}") if failed else None
    return _over(status, now=ctx.clock.now(), given=given)


def _given_up(spec: VettingSpec, claim: Claim, *, now: float) -> _Given | None:
    """Why there is nothing more to wait for."""
    said = claim.status
    if said.phase == "Failed":
        return _Given(said.reason or "Failed", f"on Host {claim.spec.host}: {said.message}")
    if said.restarts >= RESTARTS_MAX:
        return _Given(said.reason or "EngineExited", f"its engine ended {said.restarts} times: {said.message}")
    if claim.spec.since and now - claim.spec.since > spec.deadline_minutes * 60:
        return _Given("TooLate", f"it was not over after {spec.deadline_minutes} minutes: {said.message}")
    return None


def _over(status: VettingStatus, *, now: float, given: _Given | None) -> Outcome:
    """Said first, let go at the next look: what is known is kept before the claim that knows it is gone."""
    message = given.message if given else "measured"
    update = {"finished_at": rfc3339(now), "progress_percent": 100, "trouble": given.reason if given else ""}
    status = status.model_copy(update=update)
    reason = given.reason if given else "Releasing"
    return _wait(status, "Releasing", reason=reason, message=message, again=0.0)


def _leaving(vetting: Vetting, waits: str) -> Outcome:
    """Its claim goes. What was said of its end stays said."""
    status = vetting.status.model_copy(update={"phase": "Releasing"})
    reason = status.trouble or "Releasing"
    return Wait(reason=reason, message=waits, status=status, again=2.0, remedy=REMEDIES["Releasing"])


def _ended(vetting: Vetting) -> Outcome:
    """It holds nothing any more."""
    status = vetting.status.model_copy(update={"claim": ""})
    if status.trouble or status.vetted is None:
        status = status.model_copy(update={"phase": "Failed"})
        reason = status.trouble or "Failed"
        return Fail(reason=reason, message=status.message, status=status, again=3600.0, remedy=REMEDIES["Failed"])
    rate = status.vetted.rate
    status = status.model_copy(update={"phase": "Succeeded", "message": ""})
    return Done(status=status, reason="Succeeded", message=f"up to {rate:g} requests a second")


def _percent(claim: Claim) -> int:
    said = claim.status.detail.get("percent")
    return said if type(said) is int and 0 <= said <= 100 else 0


def _hindered(vetting: Vetting, found: Hindrance) -> Outcome:
    return _held(vetting, found.reason, message=found.message, again=again(found), remedy=found.remedy)


def _held(vetting: Vetting, reason: str, *, message: str, again: float, remedy: str, **waiting: Any) -> Outcome:
    """No place is taken."""
    status = _blank(vetting, message, **waiting)
    return _wait(status, "Pending", reason=reason, message=message, again=again, remedy=remedy)


def _blank(vetting: Vetting, message: str, **update: Any) -> VettingStatus:
    """Nothing is known of a host, and nothing that was measured there counts."""
    blank: dict[str, Any] = {
        "claim": "",
        "host": "",
        "fake": False,
        "progress_percent": 0,
        "memory_bytes": 0,
        "estimate_bytes": 0,
        "checks": [],
        "points": [],
        "message": message,
        **turns.NOT_WAITING,
    }
    return vetting.status.model_copy(update={**blank, **update})


def _wait(
    status: VettingStatus, phase: VettingPhase, *, reason: str, message: str, again: float, remedy: str = ""
) -> Outcome:
    status = status.model_copy(update={"phase": phase, "message": message})
    return Wait(reason=reason, message=message, status=status, again=again, remedy=remedy or REMEDIES.get(phase, ""))
