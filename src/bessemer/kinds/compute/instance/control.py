"""The Instance on the control side: a place first, then what its Claim and its host say, folded into one status.

Once the Claim stands, flavor and image are read no more: what was agreed is frozen in the intent, so they may be
deleted while the instance runs.

A claim that its host gave up (Failed: no guest of it ever reported well) is let go, so that nothing is held for
nothing. The instance stays Failed without a place, and says why, until its spec changes: then it is placed anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from bessemer.core.asking import Asker, Refusal
from bessemer.core.errors import BessemerError, Conflict, QuotaExceeded, Taken, Walled
from bessemer.core.ports import CONTROLLER
from bessemer.core.resource import Done, Fail, Key, Outcome, Wait
from bessemer.core.taking import Within
from bessemer.core.units import parse_bytes
from bessemer.core.values import ClaimPhase
from bessemer.kinds import turns, workload
from bessemer.kinds.compute.instance.spec import GuestReport, Instance, InstanceIntent, InstancePhase, InstanceStatus
from bessemer.kinds.context import Context
from bessemer.kinds.fleet.claim import Claim
from bessemer.kinds.fleet.flavor import Flavor
from bessemer.kinds.fleet.image import Image
from bessemer.kinds.fleet.outline import Hindrance
from bessemer.kinds.taking import taking
from bessemer.kinds.wants import TOO_SMALL, Want, again, want
from bessemer.kinds.workload import HostView

PHASES: Mapping[ClaimPhase, InstancePhase] = {
    "Pending": "Preparing",
    "Preparing": "Preparing",
    "Starting": "Booting",
    "Running": "Running",
    "Stopping": "Stopping",
    "Stopped": "Stopped",
    "Lost": "Booting",
    "Failed": "Failed",
    "Gone": "Pending",
}
"""What a claim's phase means to the instance that holds it."""

DEADLINES: Mapping[str, float] = {
    "Pending": 600.0,
    "Preparing": 600.0,
    "Booting": 240.0,
    "Stopping": 120.0,
    "Unknown": 300.0,
    "Terminating": 300.0,
}

REMEDIES: Mapping[str, str] = {
    "Preparing": "See whether the host's disk is full and whether it reaches the control plane's content.",
    "Booting": "Look at the serial log; delete the instance to give its place back.",
    "Stopping": "Delete the instance if its disk is not needed.",
    "Failed": "Set running to false and to true again for another try at another place, or delete the instance.",
    "Unknown": "Bring the host's agent back, or fence the host to have the instance placed anew.",
    "Terminating": "Bring the host's agent back, or fence the host to give its devices away.",
}

_HELD = "Bring the agent of the Claim's host back, or fence the host to give its devices away."


async def reconcile(ctx: Context, instance: Instance) -> Outcome:
    # Of which nothing was ever said, nothing was taken but by a release that said so afterwards, and a name is seldom
    # held: that is looked at where it finds no place at once.
    sure = bool(instance.status.history)
    return await _reconcile(ctx, instance, claim=await workload.claim_of(ctx, instance) if sure else None, sure=sure)


async def _surely(ctx: Context, instance: Instance) -> Outcome:
    """`reconcile`, in view of whatever claim there is."""
    return await _reconcile(ctx, instance, claim=await workload.claim_of(ctx, instance), sure=True)


async def _reconcile(ctx: Context, instance: Instance, *, claim: Claim | None, sure: bool) -> Outcome:
    """``sure``: there is no other claim of its name."""
    parts = _parts(instance)
    given_up = instance.status.phase == "Failed" and not instance.changed
    ctx.parts.note(instance.key, parts, waits=claim is None and not given_up)
    if claim is None:
        return _given_up(instance) if given_up else await place(ctx, instance, sure=sure)
    if claim.spec.workload.uid != instance.uid:
        message = f"{claim.key} belongs to an earlier instance of this name"
        return Wait(reason="NameHeld", message=message, status=_pending(instance, message), again=2.0, remedy=_HELD)
    host = await workload.host_view(ctx, claim.spec.host)
    now = ctx.clock.now()
    lost = host.fenced or claim.deleting or claim.status.phase == "Gone" or turns.due(claim, now=now)
    if lost or claim.status.phase == instance.status.phase == "Failed":
        # The place is lost; the disk with it. What follows once the claim is released is a new place, or none. A claim
        # that is not Failed itself was taken anew, just before a crash: it stays.
        waits = await workload.let_go(ctx, claim, host=host)
        if given_up:
            return _given_up(instance, again=1.0)
        message = waits or f"Host {host.name} no longer holds it; a new place is looked for"
        reason, notice = "Replacing", turns.notice_of(claim)
        if notice is not None:
            reason, message = notice.reason, f"{notice.why}; {message}"
        return Wait(reason=reason, message=message, status=_pending(instance, message), again=1.0, remedy=_HELD)
    note = await workload.parted(ctx, *parts)
    claim = next(iter(await turns.spared(ctx, [claim])), claim)
    claim = await _amended(ctx, instance, claim=claim)
    return turns.told(fold(instance, claim, host=host, note=note), [claim], now=now)


def _parts(instance: Instance) -> tuple[Key, Key]:
    """What it is made of."""
    return Key("Flavor", "", instance.spec.flavor), Key("Image", "", instance.spec.image)


def _given_up(instance: Instance, *, again: float = 300.0) -> Outcome:
    """What was said when it failed stands, and its host no more."""
    ready = instance.status.condition("Ready")
    reason = ready.reason if ready is not None else "Failed"
    status = instance.status.model_copy(update={"claim": "", "host": "", "started_at": None})
    return Fail(reason=reason, message=status.message, status=status, again=again, remedy=REMEDIES["Failed"])


async def finalize(ctx: Context, instance: Instance) -> Outcome:
    """Ask for the claim's end, wait until its host says that nothing is left, give the hardware back."""
    claim = await workload.claim_of(ctx, instance)
    if claim is None or claim.spec.workload.uid != instance.uid:
        ctx.parts.forget(instance.key)
        return Done()
    host = await workload.host_view(ctx, claim.spec.host)
    waits = await workload.let_go(ctx, claim, host=host)
    if not waits:
        ctx.parts.forget(instance.key)
        return Done()
    update = {"phase": "Terminating", "message": waits}
    reason = "Terminating" if host.reachable else "HostSilent"
    status = instance.status.model_copy(update=update)
    return Wait(reason=reason, message=waits, status=status, again=10.0, remedy=REMEDIES["Terminating"])


async def _amended(ctx: Context, instance: Instance, *, claim: Claim) -> Claim:
    """The claim, with what may change of its intent as the instance now says."""
    intent = InstanceIntent.model_validate(claim.spec.intent)
    update = {"running": instance.spec.running, "restart_policy": instance.spec.restart_policy}
    wanted = intent.model_copy(update=update)
    if wanted == intent:
        return claim
    stored = await ctx.capacity.amend(claim.key, wanted.dump(), CONTROLLER, uid=claim.uid)
    return Claim.load(stored.body)


async def wanted(ctx: workload.Reads, instance: Instance) -> Want[Image]:
    """What it asks of the fleet, and what keeps it from asking."""
    return await want(ctx, instance, part=Image, name=instance.spec.image, virtualization=True)


async def place(ctx: Context, instance: Instance, *, sure: bool = True) -> Outcome:
    """Find a host, to be taken with the status that says so. Where that fails and it is not ``sure`` that there is no
    claim of its name, that is looked at first."""
    asks = await wanted(ctx, instance)
    flavor, image, terms = asks.flavor, asks.part, asks.terms
    if asks.hindrances or flavor is None or image is None or asks.request is None:
        return _hindered(instance, asks.hindrances[0]) if sure else await _surely(ctx, instance)
    asker = turns.asker_of(instance, terms=terms, now=ctx.clock.now())
    decision = ctx.fleet.decide(asks.request, asker)
    if isinstance(decision, Refusal):
        return await _refused(ctx, instance, refusal=decision, asker=asker) if sure else await _surely(ctx, instance)
    intent = intent_of(instance, flavor=flavor, image=image).dump()
    make = workload.Make(flavor, intent, terms, asker, instance.spec.moves)

    async def failed(error: BessemerError) -> Outcome:
        ctx.parts.note(instance.key, _parts(instance), waits=True)
        if sure or not isinstance(error, QuotaExceeded | Walled | Taken | Conflict):
            return _untaken(instance, error, now=ctx.clock.now())
        return await _surely(ctx, instance)

    within = await taking(ctx, instance, decision=decision, make=make, failed=failed)
    ctx.parts.note(instance.key, _parts(instance), waits=False)
    claim = workload.claim_key(instance).name
    update = {**_NOWHERE, "claim": claim, "host": decision.host, "fake": decision.fake}
    return _placed(instance.status, update, within=within)


async def _refused(ctx: Context, instance: Instance, *, refusal: Refusal, asker: Asker) -> Outcome:
    try:
        await turns.make_room(ctx, refusal, asker=asker)
    except (QuotaExceeded, Walled, Taken) as error:
        return _untaken(instance, error, now=ctx.clock.now())
    return _unschedulable(instance, refusal, now=ctx.clock.now())


def _untaken(instance: Instance, error: BessemerError, *, now: float) -> Outcome:
    """Why there is no place. Raises what says nothing of that."""
    if isinstance(error, QuotaExceeded):
        remedy = "Delete something, or ask for a higher quota."
        status = _pending(instance, error.message)
        return Wait(reason="QuotaExceeded", message=error.message, status=status, again=30.0, remedy=remedy)
    if isinstance(error, Walled):
        return _walled(instance, error.message)
    if isinstance(error, Taken):
        waiting, pause = turns.lost(instance.status, now=now)
        status = _pending(instance, error.message).model_copy(update=waiting)
        return Wait(reason="Taken", message=error.message, status=status, again=pause, remedy=turns.LOST_REMEDY)
    raise error


def intent_of(instance: Instance, *, flavor: Flavor, image: Image) -> InstanceIntent:
    """What the host side is asked for, frozen at this moment."""
    return InstanceIntent(
        image=image.status.digest,
        cpus=flavor.spec.cores,
        memory_bytes=parse_bytes(flavor.spec.memory),
        disk_bytes=parse_bytes(flavor.spec.disk),
        hostname=instance.metadata.name,
        running=instance.spec.running,
        restart_policy=instance.spec.restart_policy,
    )


def fold(instance: Instance, claim: Claim, *, host: HostView, note: str = "") -> Outcome:
    """The instance's status out of its claim's and its host's. ``note`` is shown where all is well. Pure."""
    said = claim.status
    update = {
        "claim": claim.metadata.name,
        "host": claim.spec.host,
        "fake": claim.spec.fake,
        "restarts": said.restarts,
        "started_at": said.started_at,
        **turns.NOT_WAITING,
    }
    status = instance.status.model_copy(update=update)
    if not host.reachable:
        return _wait(status, "Unknown", reason="HostSilent", message=host.message)
    if claim.changed and said.phase in ("Running", "Stopped", "Failed"):
        return _changing(status, instance)
    if said.phase == "Pending":
        # As was said when the place was taken: that the claim stands is no news.
        return _placed(status, update)
    phase = PHASES[said.phase]
    status = status.model_copy(update={"guest": _guest(claim)})
    if phase == "Running":
        status = status.model_copy(update={"phase": phase, "message": note})
        return Done(status=status, message=f"the guest runs on Host {claim.spec.host}")
    if phase == "Stopped":
        why = f"{said.message}; set running to false and to true again" if said.reason else "stopped as asked"
        status = status.model_copy(update={"phase": phase, "message": said.message or note})
        return Done(
            status=status, ready=False, reason=said.reason or "Stopped", message=f"{why}; its disk and place stay"
        )
    message = said.message or f"Host {claim.spec.host} has been asked"
    if phase == "Failed":
        message = f"on Host {claim.spec.host}: {message}"
    return _wait(status, phase, reason=said.reason or phase, message=message)


def _placed(status: InstanceStatus, update: Mapping[str, Any], *, within: Within | None = None) -> Wait:
    """The claim stands, and its host has not spoken of it yet."""
    message = f"a place on Host {update['host']} is taken"
    status = status.model_copy(update={**update, "phase": "Preparing", "guest": None, "message": message})
    remedy = REMEDIES["Preparing"]
    return Wait(reason="Placed", message=message, status=status, again=300.0, remedy=remedy, within=within)


def _guest(claim: Claim) -> GuestReport | None:
    """What the host says that the guest said. A host may be anybody's in the end: what cannot be read is nothing."""
    try:
        return GuestReport.model_validate(claim.status.detail["guest"])
    except (KeyError, ValidationError):
        return None


def _changing(status: InstanceStatus, instance: Instance) -> Outcome:
    """The host has not yet seen the newest intent: what it said is of the one before."""
    phase: InstancePhase = "Booting" if instance.spec.running else "Stopping"
    return _wait(status, phase, reason=phase, message="the host has been asked")


def _wait(status: InstanceStatus, phase: InstancePhase, *, reason: str, message: str) -> Outcome:
    status = status.model_copy(update={"phase": phase, "message": message})
    if phase == "Failed":
        # Said first, let go at the next look: were it the other way round, the claim might be gone before its reason is
        # kept, and the instance placed once more.
        return Fail(reason=reason, message=message, status=status, again=0.0, remedy=REMEDIES[phase])
    return Wait(reason=reason, message=message, status=status, again=60.0, remedy=REMEDIES.get(phase, ""))


_NOWHERE: Mapping[str, Any] = {
    "phase": "Pending",
    "claim": "",
    "host": "",
    "fake": False,
    "guest": None,
    "started_at": None,
    **turns.NOT_WAITING,
}
"""Of a status, where no claim stands, or not for long: nothing that was known of a host or a guest holds any more."""


def _pending(instance: Instance, message: str) -> InstanceStatus:
    return instance.status.model_copy(update={**_NOWHERE, "message": message})


def _walled(instance: Instance, message: str) -> Outcome:
    remedy = "Ask an administrator of the platform, or make another instance."
    return Wait(reason="TenantWalled", message=message, status=_pending(instance, message), again=30.0, remedy=remedy)


def _hindered(instance: Instance, found: Hindrance) -> Outcome:
    """It asks for no place."""
    status, remedy = _pending(instance, found.message), found.remedy
    if found.reason == TOO_SMALL:
        return Fail(reason=found.reason, message=found.message, status=status, remedy=remedy)
    return Wait(reason=found.reason, message=found.message, status=status, again=again(found), remedy=remedy)


def _unschedulable(instance: Instance, refusal: Refusal, *, now: float) -> Outcome:
    message = str(refusal)
    status = _pending(instance, message).model_copy(update=turns.refused(instance.status, refusal, now=now))
    reason = "Queued" if refusal.queued else "Unschedulable"
    return Wait(reason=reason, message=message, status=status, again=10.0, remedy=refusal.cheapest)
