"""The Consolidation on the control side: planned anew until it is approved, then carried out (`carry`), then a record.

One is carried out at a time: the others wait for it.
"""

from __future__ import annotations

import orjson

from bessemer.core.clock import epoch, rfc3339
from bessemer.core.ports import Scope
from bessemer.core.resource import Done, Fail, Outcome, Wait, set_condition
from bessemer.kinds import workload
from bessemer.kinds.context import Context, Looks
from bessemer.kinds.fleet.consolidation import carry
from bessemer.kinds.fleet.consolidation.obstacles import NoPlan, counted, how
from bessemer.kinds.fleet.consolidation.plan import legal, opening, planned
from bessemer.kinds.fleet.consolidation.spec import Consolidation, ConsolidationStatus
from bessemer.kinds.fleet.host import Host

LOOK_SECONDS, LOOK_SECONDS_MAX = 30.0, 3600.0
"""Between two looks at a plan that nobody approved yet: a part (`_LOOK_SHARE`) of its age, within these."""

_LOOK_SHARE = 20

ABANDONED_SECONDS = 7 * 86_400.0
"""After so long nobody is thought to approve it any more."""

UNBEGUN_REMEDY = "Nothing was moved. Make another consolidation, and look at its plan before you approve it."


async def reconcile(ctx: Context, asked: Consolidation) -> Outcome:
    phase = asked.status.phase
    if phase in ("Succeeded", "Failed"):
        return await _recorded(ctx, asked)
    if phase == "Moving":
        # Two that began at the same moment did not see each other: whoever sees another now, and did nothing yet, is
        # behind. What the first step is goes into the status after this look.
        if carry.untouched(asked.status) and (before := await _before(ctx, asked)):
            return _behind(asked, asked.status.model_copy(update={"began_at": None, "cordoned": []}), before=before)
        return await carry.carry(ctx, asked)
    age = _age(asked, now=ctx.clock.now())
    if not asked.spec.approved and age >= ABANDONED_SECONDS:
        said = f"nobody approved it within {ABANDONED_SECONDS / 86_400:.0f} days"
        return _given_up(asked, said, reason="NotApproved", now=ctx.clock.now())
    found = await _plan(ctx, asked)
    if isinstance(found, NoPlan):
        return _without(asked, found, now=ctx.clock.now())
    if not asked.spec.approved:
        return _shown(found, again=_look(age))
    shown = asked.status.planned_at is not None
    if shown and found.moves > asked.status.moves:
        said = f"the plan that was shown, of {counted(asked.status.moves, 'move')}, cannot be carried out any more"
        return _given_up(asked, f"{said}, and it takes {found.moves} by now", reason="PlanChanged", now=ctx.clock.now())
    before = await _before(ctx, asked)
    if before:
        # Who was approved unseen has no plan that somebody counts on.
        return _behind(asked, found if shown else asked.status, before=before)
    cordoned = await _open(ctx, found) if asked.spec.empty is not None else []
    now, message = rfc3339(ctx.clock.now()), f"{counted(found.moves, 'claim')} to be moved"
    update = {"phase": "Moving", "began_at": now, "message": message, "cordoned": cordoned}
    status = found.model_copy(update=update)
    return Wait(reason="Moving", message=message, status=status, again=0.0, remedy=carry.REMEDY)


async def preview(ctx: Looks, asked: Consolidation) -> ConsolidationStatus:
    """The plan of this moment, or why there is none, of one that nobody stored: nothing is left of it. Raises
    Unavailable until the fleet has been read."""
    found, now = await planned(ctx, asked), rfc3339(ctx.clock.now())
    if isinstance(found, NoPlan):
        status, reason, message = ConsolidationStatus(message=found.words), found.reason, found.message
    else:
        message, reason = f"{_offer(found)}: nothing is kept of a dry run", "Planned"
        status = found.model_copy(update={"phase": "Planned", "message": message, "planned_at": now})
    conditions = set_condition(status.conditions, "Ready", False, reason=reason, message=message, now=now)
    return status.model_copy(update={"conditions": conditions})


async def finalize(ctx: Context, asked: Consolidation) -> Outcome:
    """What is under way ends first: whoever was told to go has its place kept until it came there. No further step
    begins, and what was cordoned for it is open again, but for hosts that are empty as they were to be."""
    status = asked.status
    if status.phase == "Succeeded":
        return Done()
    step = next((step for step in status.steps if step.phase == "Moving"), None)
    if step is not None and step.how == "Restart" and status.phase in ("Moving", "Terminating"):
        outcome = await carry.gone_on(ctx, status.model_copy(update={"phase": "Terminating"}), step=step)
        if isinstance(outcome, Wait):
            return outcome
    await carry.cordon(ctx, status.cordoned, shut=False)
    return Done()


async def _plan(ctx: Context, asked: Consolidation) -> ConsolidationStatus | NoPlan:
    """The plan that is shown, for as long as it would come to what it says; else another."""
    if asked.status.planned_at is not None and asked.status.steps:
        request = await opening(ctx, asked.spec.open) if asked.spec.open is not None else None
        there = not isinstance(request, NoPlan) and legal(ctx.fleet.forked(), asked, request=request)
        if there and all([await how(ctx, step) for step in asked.status.steps]):
            return asked.status
    found = await planned(ctx, asked)
    if isinstance(found, NoPlan):
        return found
    same = asked.status.planned_at is not None and found == asked.status
    return asked.status if same else found.model_copy(update={"planned_at": rfc3339(ctx.clock.now())})


def _age(asked: Consolidation, *, now: float) -> float:
    made = asked.metadata.creation_timestamp
    return now - epoch(made) if made else 0.0


def _look(age: float) -> float:
    """Seconds to the next look at one of that age, for which nobody waits."""
    return min(LOOK_SECONDS_MAX, max(LOOK_SECONDS, age / _LOOK_SHARE))


def _shown(status: ConsolidationStatus, *, again: float) -> Outcome:
    message = f"{_offer(status)}: nothing is moved until spec.approved says so"
    status = status.model_copy(update={"phase": "Planned", "message": message})
    return Done(status=status, ready=False, reason="Planned", message=message, again=again)


def _offer(status: ConsolidationStatus) -> str:
    gain = counted(status.places, "place") if status.places else counted(len(status.hosts), "empty host")
    return f"{counted(status.moves, 'move')} for {gain}"


def _without(asked: Consolidation, found: NoPlan, *, now: float) -> Outcome:
    """It waits for a plan. One that was approved begins in time or not at all, and what was shown of it stands: a
    dearer plan is not what was approved."""
    status, spec, age = ConsolidationStatus(), asked.spec, _age(asked, now=now)
    if spec.approved:
        status = asked.status
        # Whoever was Planned until now is looked at once more.
        if status.phase == "Pending" and age >= spec.deadline_seconds:
            message = f"there is no plan {spec.deadline_seconds} s after it was made: {found.message}"
            return _given_up(asked, message, reason="NoPlan", now=now)
    status = status.model_copy(update={"phase": "Pending", "message": found.words})
    again = LOOK_SECONDS if spec.approved else _look(age)
    return Wait(reason=found.reason, message=found.message, status=status, again=again, remedy=found.remedy)


def _given_up(asked: Consolidation, message: str, *, reason: str, now: float) -> Outcome:
    """It ends before anything was moved, and its message says what to do: nobody else is told."""
    message = f"{message}. {UNBEGUN_REMEDY}"
    update = {"phase": "Failed", "message": message, "finished_at": rfc3339(now)}
    return Fail(reason=reason, message=message, status=asked.status.model_copy(update=update), remedy=UNBEGUN_REMEDY)


def _behind(asked: Consolidation, status: ConsolidationStatus, *, before: str) -> Outcome:
    message = f"Consolidation {before} is carried out first"
    status = status.model_copy(update={"phase": "Pending", "message": message})
    # Of two that make way for each other one looks again much sooner.
    again = 1.0 if asked.metadata.name < before else 10.0
    return Wait(
        reason="Behind", message=message, status=status, again=again, remedy=f"Wait for it, or delete {before}."
    )


async def _before(ctx: Context, asked: Consolidation) -> str:
    """The name of another one that is carried out at this moment."""
    page = await ctx.objects.list(Scope(kind=Consolidation.KIND))
    busy = [
        stored.key.name
        for stored in page.items
        if stored.uid != asked.uid and orjson.loads(stored.body).get("status", {}).get("phase") in _BUSY
    ]
    return busy[0] if busy else ""


_BUSY = ("Moving", "Terminating")


async def _open(ctx: Context, status: ConsolidationStatus) -> list[str]:
    """Those of its hosts that nobody cordoned yet."""
    found = [await workload.read(ctx, Host, name=name) for name in status.hosts]
    return [host.metadata.name for host in found if host is not None and not host.spec.unschedulable]


async def _recorded(ctx: Context, asked: Consolidation) -> Outcome:
    """What came of it stands. Hosts that it cordoned in vain are open again."""
    status = asked.status
    if status.phase == "Succeeded":
        return Done(status=status, reason="Succeeded", message=status.message)
    if status.cordoned:
        await carry.cordon(ctx, status.cordoned, shut=False)
        status = status.model_copy(update={"cordoned": []})
    ready = status.condition("Ready")
    reason = ready.reason if ready is not None else "Failed"
    remedy = carry.FAILED_REMEDY if status.began_at else UNBEGUN_REMEDY
    return Fail(reason=reason, message=status.message, status=status, remedy=remedy)
