"""One replica of an Endpoint on its host: the model's file, an engine process, and a real completion as the proof.

One `converge` is: observe (the engine's process) → `decide`, which is pure → act. Invariants: phase Running means that
this very process answered a completion with the right model, text and counts; the replica's secret is fetched when it
is needed and never kept; a running engine is not probed again, for its token counters are what the bill is checked by,
but checked at its door, and one that does not answer there for `SILENT_SECONDS` is Lost and started anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any, Literal

from bessemer.core.clock import rfc3339
from bessemer.core.errors import BessemerError, DriverError
from bessemer.core.resource import Done, Outcome, Wait
from bessemer.core.units import show_bytes
from bessemer.drivers.engine.protocol import EngineSpec, RunningEngine
from bessemer.drivers.process.protocol import End
from bessemer.kinds.context import HostContext
from bessemer.kinds.fleet.claim import Claim, ClaimStatus
from bessemer.kinds.host_side import LOOK_SECONDS, Pass, clear
from bessemer.kinds.inference.endpoint import caching, counting, loading
from bessemer.kinds.inference.endpoint.adapting import adapt, adapters_of, brought
from bessemer.kinds.inference.endpoint.spec import EndpointIntent
from bessemer.kinds.retry import Retry

SILENT_SECONDS, SILENT_LOOKS, CHECK_SECONDS = 30.0, 6, 4.0
"""How long, and how many looks in a row, a door may stay silent; and how long one look waits for an answer. Both, for
the clock may jump and looks may come together."""

LOAD_LOOK_SECONDS = 0.3

SECRET = "replica"
"""The secret of a claim that the engine asks of whoever speaks to it."""

_Pass = Pass[EndpointIntent]
Step = Literal["announce", "start", "ended", "hold", "probe", "watch"]


def decide(status: ClaimStatus, engine: RunningEngine | None, *, now: float) -> Step:
    """What comes next. Pure."""
    if engine is not None:
        settled = status.phase == "Running" and status.detail.get("process") == identity(engine)
        return "watch" if settled else "probe"
    if status.detail.get("process"):
        return "ended"
    if Retry.read(status.detail).left(now):
        return "hold"
    return "start" if status.phase in ("Preparing", "Lost") else "announce"


def identity(engine: RunningEngine) -> str:
    """One process for ever: its pid alone would come back."""
    return f"{engine.pid}:{engine.started_ticks}"


def threads_of(intent: EndpointIntent) -> int:
    """One thread less than cores, for an engine whose threads spin on each other collapses when one is kept waiting."""
    return max(1, intent.cores_milli // 1000 - 1)


class EndpointHost:
    """Implements `kinds.host_side.HostSide` for replicas of Endpoints."""

    async def converge(self, ctx: HostContext, claim: Claim) -> Outcome:
        this = Pass(ctx, claim, EndpointIntent.model_validate(claim.spec.intent))
        ctx.content.pin(claim.uid, this.intent.digests)
        engine = await ctx.drivers.engine.find(claim.uid)
        step = decide(claim.status, engine, now=ctx.clock.now())
        try:
            if step == "start":
                return await _start(this)
            if step == "probe" and engine is not None:
                return await _probe(this, engine)
            if step == "watch" and engine is not None:
                return await _watch(this, engine)
            if step == "ended":
                return await _ended(this)
        except DriverError as error:
            return this.failed(explained(error, this.intent))
        if step == "hold":
            return this.hold()
        return this.wait("Preparing", "Preparing", message="the model is brought to the host", again=0.0)

    async def remove(self, ctx: HostContext, claim: Claim) -> Outcome:
        counted, found = claim.status.detail.get("counted"), await _last(ctx, claim)
        if found is not None and not counting.told(claim, found["process"]):
            # It stands on the disk before the engine goes: a crash loses none of it, but for what comes from here on.
            status = claim.status.model_copy(update={"detail": {**claim.status.detail, "counted": found}})
            remedy = "Bring the host's agent back."
            return Wait(reason="Counted", message="what it counted is kept", status=status, again=0.0, remedy=remedy)
        outcome = await clear(ctx, claim, ctx.drivers.engine.stop)
        latest = found or counting.unheard(counted)
        if latest and isinstance(outcome, Done) and isinstance(outcome.status, ClaimStatus):
            return replace(outcome, status=outcome.status.model_copy(update={"detail": {"counted": latest}}))
        return outcome

    def log(self, ctx: HostContext, claim: Claim, *, follow: bool) -> AsyncIterator[bytes]:
        return ctx.drivers.engine.log(claim.uid, follow=follow)


def explained(error: DriverError, intent: EndpointIntent) -> DriverError:
    """The error itself, and for want of memory what was asked for beside the driver's words."""
    if error.reason != "OutOfMemory":
        return error
    needs = f", and the model needs about {show_bytes(intent.needs_bytes)}" if intent.needs_bytes else ""
    asked = f"{intent.slots} slots of {intent.context_tokens} tokens within {show_bytes(intent.memory_bytes)}"
    return DriverError(error.reason, f"{error.message}; asked were {asked}{needs}", internal=error.internal)


async def _start(this: _Pass) -> Outcome:
    """Bring the model and start the engine. Each is found again when this is run twice."""
    ctx, claim, intent = this.ctx, this.claim, this.intent
    secret = await _secret(this)
    path, files = await brought(ctx, intent.model, files=intent.files)
    adapters = await adapters_of(ctx, intent)
    engine = await ctx.drivers.engine.start(
        EngineSpec(
            uid=claim.uid,
            model_path=path,
            alias=intent.alias,
            slots=intent.slots,
            context_tokens=intent.context_tokens * intent.slots,
            threads=threads_of(intent),
            memory_bytes=intent.memory_bytes,
            cores_milli=intent.cores_milli,
            secret=secret,
            own_cpus=claim.spec.own_cpus,
            engine=intent.engine,
            arguments=intent.arguments,
            adapters=adapters,
            devices=tuple(claim.spec.devices),
            files=files,
            task=intent.task,
        )
    )
    return _started(this, engine)


def _started(this: _Pass, engine: RunningEngine) -> Outcome:
    """A process that has still to be found good: its time begins now."""
    changes = {
        "detail": {"process": identity(engine), "loading": None, "cache": None},
        "pid": engine.pid,
        "started_at": rfc3339(this.ctx.clock.now()),
    }
    return this.wait(
        "Starting", "EngineStarting", message="the engine loads the model", again=LOAD_LOOK_SECONDS, **changes
    )


async def _probe(this: _Pass, engine: RunningEngine) -> Outcome:
    """An engine that has not yet been found good: ask it for a completion, or a vector."""
    status = this.claim.status
    if status.detail.get("process") != identity(engine):
        # Started by us just before a crash, or by an agent before us: its time begins now.
        return _started(this, engine)
    secret = await _secret(this)
    try:
        engines, intent = this.ctx.drivers.engine, this.intent
        probe = await engines.probe(this.claim.uid, secret, alias=intent.alias, task=intent.task)
    except DriverError as error:
        if error.reason == "EngineStarting":
            return await _loading(this)
        if error.reason in ("EngineExited", "OutOfMemory"):
            return await _ended(this)
        return await _restart(this, error)
    address = this.ctx.advertise(this.claim.uid, engine.door)
    counted = await counting.proved(this.ctx, this.claim, process=identity(engine), secret=secret, probe=probe)
    return this.running(detail={"silent": None, "loading": None, **counted}, address=address)


async def _loading(this: _Pass) -> Outcome:
    """It may take its time as long as it gets on."""
    now, stats = this.ctx.clock.now(), await this.ctx.drivers.engine.stats(this.claim.uid)
    seen = loading.look(this.claim.status.detail.get("loading"), stats, now=now)
    if words := loading.stuck(seen, now=now):
        return await _restart(this, DriverError("EngineSilent", words))
    return this.wait(
        "Starting",
        "EngineStarting",
        message="the engine loads the model",
        again=LOAD_LOOK_SECONDS,
        detail={"loading": dict(seen)},
    )


async def _watch(this: _Pass, engine: RunningEngine) -> Outcome:
    """An engine that was found good: see that its door still answers."""
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            await this.ctx.drivers.engine.check(this.claim.uid)
    except TimeoutError:
        return await _silent(this, DriverError("EngineSilent", "its door gives no answer"))
    except DriverError as error:
        if error.reason in ("EngineExited", "OutOfMemory"):
            return await _ended(this)
        return await _silent(this, error)
    # The address is said anew each time: an agent that keeps a door before the engine opens it again after a restart.
    address = this.ctx.advertise(this.claim.uid, engine.door)
    detail = {"silent": None, **await _counted(this, engine), **await _cached(this)}
    try:
        return this.running(detail={**detail, **await _adapted(this)}, address=address)
    except DriverError as error:
        # It serves what it has.
        message = f"its adapters are not those that are wanted: {error.message}"
        return this.wait("Running", error.reason, message=message, again=LOOK_SECONDS, detail=detail, address=address)


async def _counted(this: _Pass, engine: RunningEngine) -> Mapping[str, Any]:
    if not counting.due(this.claim.status.detail.get("counted"), this.ctx.clock.now()):
        return {}
    return await counting.look(this.ctx, this.claim, process=identity(engine), secret=await _secret(this))


async def _cached(this: _Pass) -> Mapping[str, Any]:
    """How full its cache is, where it is to be read now; what it does not say stays as it was."""
    if not caching.due(this.intent.engine, this.ctx.clock.now()):
        return {}
    found = await counting.read(this.ctx, this.claim, secret=await _secret(this))
    return {} if found is None else {"cache": caching.level(found)}


async def _last(ctx: HostContext, claim: Claim) -> dict[str, Any] | None:
    """What its engine has counted up to now, where that can be known: it goes, whatever it has counted."""
    try:
        engine = await ctx.drivers.engine.find(claim.uid)
        if engine is None or claim.status.detail.get("process") != identity(engine):
            return None
        secret = (await ctx.secrets.get(claim.uid)).get(SECRET, "")
    except BessemerError:
        return None
    return await counting.last(ctx, claim, process=identity(engine), secret=secret)


async def _adapted(this: _Pass) -> Mapping[str, Any]:
    if not this.intent.adapters and not this.claim.status.detail.get("adapters"):
        return {}
    return await adapt(this, await _secret(this))


async def _silent(this: _Pass, error: DriverError) -> Outcome:
    """Once more no answer. What may still come back keeps its phase; the rest is started anew."""
    now, kept = this.ctx.clock.now(), this.claim.status.detail.get("silent") or {"since": None, "looks": 0}
    since, looks = kept["since"] or now, kept["looks"] + 1
    if looks >= SILENT_LOOKS and not 0 <= now - since < SILENT_SECONDS:
        message = f"the engine lives and has not answered for {int(SILENT_SECONDS)} s: {error.message}"
        return await _restart(this, DriverError("EngineSilent", message))
    detail = {"silent": {"since": since, "looks": looks}}
    message = f"the engine does not answer: {error.message}"
    return this.wait("Running", "EngineSilent", message=message, again=LOOK_SECONDS, detail=detail)


async def _restart(this: _Pass, error: DriverError) -> Outcome:
    """It lives and is of no use: end it, and start it anew after a while."""
    await this.ctx.drivers.engine.stop(this.claim.uid)
    return _down(this, error)


async def _ended(this: _Pass) -> Outcome:
    """It ran, it should run, and it does not: say how it ended, and start it anew after a while."""
    end = await this.ctx.drivers.engine.ended(this.claim.uid)
    if end is None:
        return _down(this, DriverError("EngineExited", "the engine ended unseen"))
    if end.reason is End.OUT_OF_MEMORY:
        return _down(this, DriverError("OutOfMemory", f"the engine {end.message}"))
    return _down(this, DriverError("EngineExited", f"the engine ended: {end.message}"))


def _down(this: _Pass, error: DriverError) -> Outcome:
    """The gap after a replica that answered is Lost, the platform's; before that it is still being prepared."""
    answered = this.claim.status.phase in ("Running", "Lost")
    return this.failed(
        explained(error, this.intent),
        phase="Lost" if answered else "Preparing",
        pid=None,
        started_at=None,
        address="",
        restarts=this.claim.status.restarts + 1,
        detail={"process": None, "silent": None, "loading": None, "adapters": None, "cache": None},
    )


async def _secret(this: _Pass) -> str:
    secrets = await this.ctx.secrets.get(this.claim.uid)
    if SECRET not in secrets:
        raise DriverError("SecretMissing", "the replica's secret has not come yet")
    return secrets[SECRET]
