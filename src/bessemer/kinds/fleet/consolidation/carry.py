"""A plan that was approved, carried out: one claim after the other.

What is done about a step follows from its phase in the status, which is written before: so a crash anywhere goes on
where it was, and an effect that is repeated is none. Where a step cannot be done, nothing further begins, and what was
cordoned is open again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from bessemer.core.clock import epoch, rfc3339
from bessemer.core.cordons import BY_HAND
from bessemer.core.errors import Conflict, NotFound
from bessemer.core.notices import CONSOLIDATION, Notice
from bessemer.core.ports import CONTROLLER, Scope
from bessemer.core.resource import Done, Fail, Outcome, Wait
from bessemer.kinds import turns, workload
from bessemer.kinds.asks import ASKS
from bessemer.kinds.context import Context
from bessemer.kinds.fleet.claim import Claim
from bessemer.kinds.fleet.consolidation.obstacles import NoPlan, counted, how
from bessemer.kinds.fleet.consolidation.plan import open_now, opening, target
from bessemer.kinds.fleet.consolidation.spec import Consolidation, ConsolidationStatus, Step
from bessemer.kinds.fleet.host import Host
from bessemer.kinds.fleet.moved import KeptPlace
from bessemer.kinds.inference.endpoint.shift import MOVING
from bessemer.kinds.retry import Retry
from bessemer.placement.fleet import set_open

GRACE_SECONDS = 30
"""Between the notice and the stop of what is not replaced."""

STEP_SECONDS = 900.0
"""For so long a claim may be on its way where nothing is seen to go on."""

LOAD_SECONDS: Mapping[str, float] = MappingProxyType({"Instance": 3600.0, "Endpoint": 7200.0, "Job": 3600.0})
"""By the workload's kind: for so long at most where its content is brought to the host, or it starts there. Of an
Endpoint that is a model, which may be hundreds of gigabytes."""

TRIES_MAX = 3
"""Failures in a row after which a host is not thought to come any further."""

LOST_SECONDS = 30
"""Whoever waits in line for so long has lost the place that was kept for it."""

LOOK_SECONDS = 10.0

WHY = "Moved to another host, so that what is free lies together"

REMEDY = "See the step that is under way, and what its workload waits for; delete it to go no further."

FAILED_REMEDY = "See the step that failed; what was moved stays where it is. Make another consolidation."


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a step cannot be done."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class _Seen:
    """A step as the store has it: the claim that is to go, the one that came for it, and the workload's body."""

    old: Claim | None
    new: Claim | None
    holder: Any


async def carry(ctx: Context, asked: Consolidation) -> Outcome:
    """The next thing of a plan in phase Moving."""
    status, now = asked.status, ctx.clock.now()
    step = next((step for step in status.steps if step.phase != "Done"), None)
    if step is None or not untouched(status):
        await cordon(ctx, status.cordoned, shut=True)
    if step is None:
        return await _ended(ctx, asked)
    if step.phase == "Waiting":
        if status.began_at and now >= epoch(status.began_at) + asked.spec.deadline_seconds:
            late = Failure("DeadlineExceeded", f"{asked.spec.deadline_seconds} s have passed")
            return failed(status, late, now=now)
        begun = await _begun(ctx, step, hosts=status.hosts)
        if isinstance(begun, Failure):
            return failed(status, begun, now=now)
        return moving(status, begun, again=LOOK_SECONDS if begun.phase == "Waiting" else 0.0)
    return await gone_on(ctx, status, step=step)


def untouched(status: ConsolidationStatus) -> bool:
    """Whether no step has begun."""
    return all(step.phase == "Waiting" for step in status.steps)


async def gone_on(ctx: Context, status: ConsolidationStatus, *, step: Step) -> Outcome:
    """What is next for a step that is under way."""
    found = await _went_on(ctx, step)
    if isinstance(found, Failure):
        return failed(status, found, now=ctx.clock.now(), step=step)
    return moving(status, found, again=0.0 if found.phase == "Done" else LOOK_SECONDS)


async def cordon(ctx: Context, names: Sequence[str], *, shut: bool) -> None:
    """Let nothing new land on these hosts, or open them again, but for those of which somebody said since then that
    they are to be cordoned."""
    for name in names:
        host = await workload.read(ctx, Host, name=name)
        if host is None or host.spec.unschedulable == shut or (not shut and BY_HAND in host.metadata.annotations):
            continue
        # What was said of one that is open by now was of another time.
        said = {key: value for key, value in host.metadata.annotations.items() if key != BY_HAND}
        meta = host.metadata.model_copy(update={"annotations": said})
        spec = host.spec.model_copy(update={"unschedulable": shut})
        await ctx.objects.replace(host.model_copy(update={"metadata": meta, "spec": spec}).dump(), CONTROLLER)


def moving(status: ConsolidationStatus, step: Step, *, again: float) -> Outcome:
    """The status with that step as it is now."""
    steps = [step if known.claim_uid == step.claim_uid else known for known in status.steps]
    moved = sum(known.phase == "Done" for known in steps)
    following = min(moved + 1, len(steps))
    message = f"move {following} of {len(steps)}: {step.message or f'{step.claim} goes to {step.target}'}"
    update = {"steps": steps, "moved": moved, "message": message}
    status = status.model_copy(update=update)
    return Wait(reason=status.phase, message=message, status=status, again=again, remedy=REMEDY, done=moved)


def failed(status: ConsolidationStatus, failure: Failure, *, now: float, step: Step | None = None) -> Outcome:
    """No further step begins."""
    if step is not None:
        gone = step.model_copy(update={"phase": "Failed", "message": failure.message, "known": []})
        steps = [gone if known.claim_uid == step.claim_uid else known for known in status.steps]
        status = status.model_copy(update={"steps": steps})
    message = f"after {status.moved} of {counted(status.moves, 'move')}: {failure.message}"
    update = {"phase": "Failed", "message": message, "finished_at": rfc3339(now)}
    status = status.model_copy(update=update)
    # Said first; what was cordoned is opened at the next look.
    return Fail(reason=failure.reason, message=message, status=status, again=0.0, remedy=FAILED_REMEDY)


# --- a step -----------------------------------------------------------------------------------------------------


async def _begun(ctx: Context, step: Step, *, hosts: Sequence[str]) -> Step | Failure:
    """The step with the place that is kept for it from now on; one whose claim went by itself is done, and one whose
    claim is about to waits until nothing of it is left."""
    name = f"{step.project}/{step.workload}"
    claim = await workload.read(ctx, Claim, name=step.claim, namespace=step.project)
    if claim is None or claim.uid != step.claim_uid:
        return step.model_copy(update={"phase": "Done", "message": f"{step.claim} went by itself"})
    if claim.deleting:
        return step.model_copy(update={"message": f"{step.claim} goes by itself"})
    way = await how(ctx, step)
    if not way:
        return Failure("NotMovable", f"{step.workload_kind} {name} is not to be moved, or would get no place again")
    decision = target(ctx.fleet.forked(), step, hosts=hosts)
    if decision is None:
        return Failure("NoPlace", f"there is no place any more for {step.workload_kind} {name}")
    place = KeptPlace.of(decision)
    known = [one.uid for one in await _there(ctx, step, host=place.host)]
    update = {
        "phase": "Moving",
        "since": rfc3339(ctx.clock.now()),
        "place": place,
        "target": place.host,
        "how": way,
        "known": known,
        "message": f"{step.claim} goes from {step.source} to {place.host}",
    }
    return step.model_copy(update=update)


async def _went_on(ctx: Context, step: Step) -> Step | Failure:
    seen, now = await _seen(ctx, step), ctx.clock.now()
    done = step.model_copy(update={"phase": "Done", "known": []})
    new, patience = seen.new, await _patience(ctx, step, new=seen.new)
    late = step.since is not None and now >= epoch(step.since) + patience
    if seen.holder is None:
        gone = f"{step.workload_kind} {step.workload} is gone"
        if seen.old is not None and late:
            return Failure("MoveTimedOut", f"{gone}, and {step.claim} is still on {step.source}")
        # What it leaves behind is cleared away first.
        return (done if seen.old is None else step).model_copy(update={"message": gone})
    if seen.old is None and new is not None and new.status.phase in ("Running", "Stopped"):
        return done.model_copy(
            update={"target": new.spec.host, "message": f"{new.metadata.name} is on {new.spec.host}"}
        )
    ready = seen.holder.status.condition("Ready")
    said = f": {ready.message}" if ready is not None and ready.message else ""
    if new is not None and new.status.phase == "Failed":
        return Failure("MoveFailed", f"{new.metadata.name} failed on {new.spec.host}: {new.status.message}")
    if late:
        return Failure("MoveTimedOut", f"{step.claim} has not come to {step.target} in {patience:.0f} s{said}")
    if seen.old is None and new is None and (lost := _lost(step, seen.holder, now=now)):
        return lost
    if step.how == "Replace" and new is None and _no_room_for_both(seen.holder):
        # Then it goes as everybody does: it is told, and comes again where its place is kept.
        return step.model_copy(
            update={"how": "Restart", "message": f"{step.claim} is stopped first: its quota is full"}
        )
    if step.how == "Restart" and seen.old is not None:
        return await _told(ctx, step, claim=seen.old)
    return step.model_copy(update={"message": f"{step.claim} goes from {step.source} to {step.target}{said}"[:1024]})


async def _patience(ctx: Context, step: Step, *, new: Claim | None) -> float:
    """Seconds that the step may take, as far as it is by now. A host that is heard of, and has what came still on its
    way up, is at work; and once that runs, whoever goes for it has the time that anybody has."""
    if new is None or Retry.read(new.status.detail).failures > TRIES_MAX:
        return STEP_SECONDS
    if new.status.phase == "Running":
        return LOAD_SECONDS[step.workload_kind] + STEP_SECONDS
    if new.status.phase not in ("Preparing", "Starting"):
        return STEP_SECONDS
    host = await workload.read(ctx, Host, name=new.spec.host)
    return LOAD_SECONDS[step.workload_kind] if host is not None and host.reachable else STEP_SECONDS


async def _told(ctx: Context, step: Step, *, claim: Claim) -> Step:
    """Told when its end is asked for; the first that it is told stays."""
    notice = turns.notice_of(claim)
    if notice is None and not claim.deleting:
        notice = Notice(int(ctx.clock.now()) + GRACE_SECONDS, WHY, CONSOLIDATION)
        try:
            await ctx.capacity.retire(claim.key, CONTROLLER, uid=claim.uid, notice=notice)
        except (NotFound, Conflict):
            return step  # it went by itself
    at = f" at {rfc3339(notice.at)}" if notice is not None else ""
    return step.model_copy(update={"message": f"{step.claim} is stopped{at}, and goes to {step.target}"})


async def _seen(ctx: Context, step: Step) -> _Seen:
    kind = ASKS[step.workload_kind].kind
    holder = await workload.read(ctx, kind, name=step.workload, namespace=step.project)
    if holder is not None and (holder.uid != step.workload_uid or holder.deleting):
        holder = None
    named = await workload.read(ctx, Claim, name=step.claim, namespace=step.project)
    old = named if named is not None and named.uid == step.claim_uid else None
    # What came is where it was kept for it, or has the name of what went.
    came = [one for one in await _there(ctx, step, host=step.target) if one.uid not in step.known]
    if named is not None and old is None and named.spec.workload.uid == step.workload_uid:
        came.append(named)
    return _Seen(old, came[0] if came else None, holder)


async def _there(ctx: Context, step: Step, *, host: str) -> Sequence[Claim]:
    """The workload's claims on a host, but for the one that goes."""
    page = await ctx.objects.list(Scope(kind="Claim", host=host))
    claims = [Claim.load(stored.body) for stored in page.items if stored.uid != step.claim_uid]
    return [claim for claim in claims if claim.spec.workload.uid == step.workload_uid]


def _lost(step: Step, holder: Any, *, now: float) -> Step | Failure | None:
    """What is so where neither the one that went nor another is there; None where that is only a matter of time."""
    if step.how == "Replace" or holder.status.phase == "Succeeded":
        return step.model_copy(update={"phase": "Done", "known": [], "message": f"{step.claim} went by itself"})
    if holder.status.phase == "Failed":
        return Failure("MoveFailed", f"{step.workload_kind} {step.workload} failed: {holder.status.message}")
    since = holder.status.waiting_since
    if since and now >= epoch(since) + LOST_SECONDS:
        return Failure("PlaceLost", f"{step.workload} waits in line: the place that was kept for it would not do")
    return None


def _no_room_for_both(holder: Any) -> bool:
    """Whether an Endpoint said that it may not have another replica before one goes."""
    said = holder.status.condition(MOVING)
    return said is not None and said.status == "True" and said.reason == "QuotaExceeded"


# --- the end ----------------------------------------------------------------------------------------------------


async def _ended(ctx: Context, asked: Consolidation) -> Outcome:
    """All steps are done: whether it came to what was planned."""
    status, now = asked.status, ctx.clock.now()
    if asked.spec.open is not None:
        request = await opening(ctx, asked.spec.open)
        there = 0 if isinstance(request, NoPlan) else _open(ctx, request, status=status)
        if there < status.places:
            return failed(status, Failure("PlaceLost", f"{there} of {status.places} places are open"), now=now)
        message = f"{counted(there, 'place')} of Flavor {asked.spec.open.flavor} open"
    else:
        left = [(await ctx.objects.list(Scope(kind="Claim", host=host))).items for host in status.hosts]
        if count := sum(map(len, left)):
            said = f"{counted(count, 'claim')} of these hosts that nobody planned with: they came meanwhile"
            return failed(status, Failure("HostTaken", said), now=now)
        message = f"{counted(len(status.hosts), 'host')} empty and cordoned: {', '.join(status.hosts)}"
    update = {"phase": "Succeeded", "message": message, "finished_at": rfc3339(now)}
    return Done(status=status.model_copy(update=update), reason="Succeeded", message=message)


def _open(ctx: Context, request: Any, *, status: ConsolidationStatus) -> int:
    """How many of the places are there once their hosts are open again."""
    fork = ctx.fleet.forked()
    for host in status.hosts:
        set_open(fork.fleet, host, schedulable=True)
    return open_now(fork, request, count=status.places)
