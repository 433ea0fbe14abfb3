"""The Job on the control side: a gang's Claims, taken together, and what they say, folded into one status.

A step is said before it is done, so that a crash in between is harmless: that the gang is started again (the attempt in
the status is newer than the Claims', which are let go), that it has ended (its Claims are let go, and billing ends with
them). The attempt stands in each Claim's intent, so which gang a Claim is of is never guessed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from bessemer.core.clock import epoch, rfc3339
from bessemer.core.errors import NotFound
from bessemer.core.notices import CONSOLIDATION, PREEMPTED
from bessemer.core.ports import CONTROLLER
from bessemer.core.resource import Done, Fail, Key, Outcome, Wait
from bessemer.kinds import turns, workload
from bessemer.kinds.context import Context
from bessemer.kinds.fleet.claim import Claim
from bessemer.kinds.jobs.job.ends import MemberEnd, end_of, message_of
from bessemer.kinds.jobs.job.place import place
from bessemer.kinds.jobs.job.spec import Job, JobHost, JobPhase, JobStatus, MemberFailure
from bessemer.kinds.turns import Hold
from bessemer.kinds.workload import HostView

LOSSES_MAX = 16
"""Starts that the platform lost (a host fenced, a process that ended unseen) and that are made good."""

BACKOFF_SECONDS, BACKOFF_SECONDS_MAX = 1.0, 300.0

DEADLINES: Mapping[str, float] = {
    "Pending": 600.0,
    "Placing": 600.0,
    "Restarting": 600.0,
    "Unknown": 300.0,
    "Terminating": 300.0,
}

REMEDIES: Mapping[str, str] = {
    "Pending": "Create or mend what the message names, or delete the job: what it is made of cannot be changed.",
    "Placing": "See the Claims' messages: what keeps a host from starting its member.",
    "Restarting": "Bring the hosts' agents back, or fence the hosts to have the gang placed anew.",
    "Failed": "See status.failure; make another job.",
    "Unknown": "Bring the hosts' agents back, or fence the hosts to have the gang placed anew.",
    "Terminating": "Bring the hosts' agents back, or fence the hosts to give their devices away.",
}

FINISHED = ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class Seen:
    """What one turn saw: the job, its present gang's Claims, their hosts, and the time."""

    job: Job
    claims: Sequence[Claim]
    hosts: Mapping[str, HostView]
    now: float


async def reconcile(ctx: Context, job: Job) -> Outcome:
    claims = await workload.own_claims(ctx, job)
    if job.status.phase in FINISHED:
        return await _finished(ctx, job, claims=claims)
    now, attempt = ctx.clock.now(), max([job.status.attempt, *map(attempt_of, claims)])
    ctx.parts.note(job.key, [Key("Flavor", "", job.spec.flavor)], waits=not claims)
    # What ended well did so in time: its hosts end what is late, whoever looks on.
    if _late(job, now) and not _all_well(job, claims):
        return _failed(job.status, now, reason="DeadlineExceeded", message=_deadline(job))
    old = [claim for claim in claims if attempt_of(claim) < attempt]
    if old:
        waits = await _let_go(ctx, old)
        return _wait(
            job.status, "Restarting", reason="Restarting", message=waits or "the gang is taken anew", again=1.0
        )
    if claims:
        claims = await turns.spared(ctx, claims, together=True)
        return _told(Seen(job, claims, await workload.host_views(ctx, claims), now))
    if job.status.not_before and (left := epoch(job.status.not_before) - now) > 0:
        return _wait(job.status, "Restarting", reason="BackingOff", message=job.status.message, again=left)
    hold = await place(ctx, job, attempt=attempt)
    if hold is not None:
        return _held(job.status, hold)
    claims = await workload.own_claims(ctx, job)
    return _told(Seen(job, claims, await workload.host_views(ctx, claims), now))


async def finalize(ctx: Context, job: Job) -> Outcome:
    """Stop every member and let it go."""
    claims = await workload.own_claims(ctx, job)
    waits = await _let_go(ctx, claims)
    if not waits:
        ctx.parts.forget(job.key)
        return Done()
    hosts = await workload.host_views(ctx, claims)
    silent = any(not host.reachable for host in hosts.values())
    status = job.status.model_copy(update={"phase": "Terminating", "message": waits})
    reason = "HostSilent" if silent else "Terminating"
    return Wait(reason=reason, message=waits, status=status, again=10.0, remedy=REMEDIES["Terminating"])


def attempt_of(claim: Claim) -> int:
    """Which start of the gang the Claim is of."""
    return int(claim.spec.intent.get("attempt", 0))


# --- what its members say ---------------------------------------------------------------------------------------


def _told(seen: Seen) -> Outcome:
    """What its members say, and what they were told of who needs their places."""
    return turns.told(fold(seen), seen.claims, now=seen.now)


def fold(seen: Seen) -> Outcome:
    """The job's status out of its Claims'. Pure."""
    status = _observed(seen)
    if _all_well(seen.job, seen.claims):
        return _succeeded(status, seen.now)
    failure = first_failure(seen.claims, now=seen.now)
    if failure is not None and failure.reason == "DeadlineExceeded":
        return _failed(status, seen.now, reason="DeadlineExceeded", message=_deadline(seen.job))
    if failure is not None and failure.reason != "MemberLost":
        return _again(status, seen, failure=failure)
    lost = failure or _lost(seen)
    if lost is not None:
        return _again(status, seen, failure=lost)
    silent = [host for host in seen.hosts.values() if not host.reachable]
    if silent:
        return _wait(status, "Unknown", reason="HostSilent", message=silent[0].message, again=30.0)
    late = next((claim for claim in seen.claims if claim.status.phase not in ("Running", "Stopped")), None)
    if late is None:
        message = f"{status.members.get('Running', 0)} of {len(seen.claims)} members run"
        return _wait(status, "Running", reason="Running", message=message, again=30.0)
    said = late.status.message or f"Host {late.spec.host} has been asked"
    message = f"rank {late.spec.workload.replica}: {said}"
    return _wait(status, "Placing", reason=late.status.reason or "Placed", message=message, again=30.0)


def _all_well(job: Job, claims: Sequence[Claim]) -> bool:
    """Whether every member of one start of the gang ended with status 0."""
    ends = [end_of(claim) for claim in claims]
    return (
        len(ends) == job.spec.members
        and len(set(map(attempt_of, claims))) == 1
        and all(end is not None and not end.reason for end in ends)
    )


def first_failure(claims: Sequence[Claim], *, now: float) -> MemberFailure | None:
    """The member that failed first by ``now``, as its host's clock says; one that failed by itself before one that was
    lost."""
    failed = [(claim, end) for claim in claims if (end := end_of(claim, now=now)) is not None and end.reason]

    def order(one: tuple[Claim, MemberEnd]) -> tuple[bool, float, int]:
        claim, end = one
        return end.reason == "MemberLost", end.at, claim.spec.workload.replica

    if not failed:
        return None
    first, end = min(failed, key=order)
    return _failure(first, reason=end.reason, message=message_of(first) or "how it ended is not known", code=end.code)


def _lost(seen: Seen) -> MemberFailure | None:
    """A member whose host cannot run it any more, or whose Claim ends, or is gone, though nobody here asked for it."""
    for claim in seen.claims:
        host = seen.hosts[claim.spec.host]
        if turns.due(claim, now=seen.now):
            notice = turns.notice_of(claim)
            why, reason = (notice.why, notice.reason) if notice else ("it was stopped", PREEMPTED)
            return _failure(claim, reason=reason, message=why)
        if host.fenced or claim.deleting or claim.status.phase == "Gone":
            message = f"Host {host.name} was fenced" if host.fenced else f"Host {host.name} no longer holds it"
            return _failure(claim, reason="MemberLost", message=message)
    missing = set(range(seen.job.spec.members)) - {claim.spec.workload.replica for claim in seen.claims}
    if not missing:
        return None
    rank, attempt = min(missing), attempt_of(seen.claims[0])
    name = next((known.name for known in seen.job.status.hosts if rank in known.ranks), "")
    message = "its Claim is gone, as those of fenced hosts are"
    return MemberFailure(rank=rank, host=name, attempt=attempt, reason="MemberLost", message=message)


def _failure(claim: Claim, *, reason: str, message: str, code: int | None = None) -> MemberFailure:
    rank, attempt = claim.spec.workload.replica, attempt_of(claim)
    return MemberFailure(
        rank=rank, host=claim.spec.host, attempt=attempt, exit_code=code, reason=reason, message=message
    )


def _observed(seen: Seen) -> JobStatus:
    """The status with all that can be seen of the members."""
    hosts: dict[str, JobHost] = {}
    for claim in seen.claims:
        name, rank = claim.spec.host, claim.spec.workload.replica
        known = hosts.get(name) or JobHost(name=name, address=claim.spec.intent.get("address", ""), ranks=[])
        hosts[name] = known.model_copy(update={"ranks": [*known.ranks, rank]})
    score = seen.claims[0].spec.placement.score
    started = seen.job.status.started_at or rfc3339(seen.claims[0].spec.intent["started"])
    update: dict[str, Any] = {
        "members": dict(sorted(Counter(str(claim.status.phase) for claim in seen.claims).items())),
        "hosts": list(hosts.values()),
        "leaves": int(score.get("leaves", 0)),
        "spines": int(score.get("spines", 0)),
        "attempt": attempt_of(seen.claims[0]),
        "started_at": started,
        "fake": any(claim.spec.fake for claim in seen.claims),
        "not_before": None,
        **turns.NOT_WAITING,
    }
    return seen.job.status.model_copy(update=update)


# --- what follows -----------------------------------------------------------------------------------------------


def _again(status: JobStatus, seen: Seen, *, failure: MemberFailure) -> Outcome:
    """The gang is stopped, and taken anew as long as it may be."""
    losses = status.losses + (failure.reason == "MemberLost")
    failures = status.failures + (failure.reason not in ("MemberLost", *turns.STOPPED))
    status = status.model_copy(update={"failure": failure, "failures": failures, "losses": losses})
    said = f"rank {failure.rank}{f' on Host {failure.host}' if failure.host else ''}: {failure.message}"
    if failures > seen.job.spec.backoff_limit:
        return _failed(status, seen.now, reason=failure.reason, message=said)
    if losses > LOSSES_MAX:
        return _failed(status, seen.now, reason="MemberLost", message=f"{said}; so often that it is given up")
    # Whoever is moved has its place waiting, and did nothing wrong.
    tries = 0 if failure.reason == CONSOLIDATION else min(status.attempt, 20)
    pause = min(BACKOFF_SECONDS_MAX, BACKOFF_SECONDS * 2**tries)
    update = {"attempt": status.attempt + 1, "not_before": rfc3339(seen.now + pause)}
    message = f"{said}; the gang is started again"
    return _wait(status.model_copy(update=update), "Restarting", reason="Restarting", message=message, again=0.0)


def _succeeded(status: JobStatus, now: float) -> Outcome:
    update = {"phase": "Succeeded", "finished_at": rfc3339(now), "message": ""}
    # Said first, let go at the next look: were it the other way round, a crash might start it once more.
    return Done(status=status.model_copy(update=update), reason="Succeeded", message=_ENDED, again=0.0)


_ENDED = "all members ended with status 0"


def _failed(status: JobStatus, now: float, *, reason: str, message: str) -> Outcome:
    update = {"phase": "Failed", "finished_at": rfc3339(now), "message": message, "not_before": None}
    status = status.model_copy(update={**update, **turns.NOT_WAITING})
    return Fail(reason=reason, message=message, status=status, again=0.0, remedy=REMEDIES["Failed"])


async def _finished(ctx: Context, job: Job, *, claims: Sequence[Claim]) -> Outcome:
    """Let its Claims go, and after its time the job itself. What was said of its end stands."""
    again, status = 300.0, job.status
    ctx.parts.forget(job.key)
    if await _let_go(ctx, claims):
        again = 2.0
    elif job.spec.ttl_seconds_after_finished is not None and status.finished_at:
        left = epoch(status.finished_at) + job.spec.ttl_seconds_after_finished - ctx.clock.now()
        if left <= 0:
            with suppress(NotFound):
                await ctx.objects.delete(job.key, CONTROLLER, uid=job.uid)
        again = min(again, max(1.0, left))
    if status.phase == "Succeeded":
        return Done(status=status, reason="Succeeded", message=_ENDED, again=again)
    ready = status.condition("Ready")
    reason = ready.reason if ready is not None else "Failed"
    return Fail(reason=reason, message=status.message, status=status, again=again, remedy=REMEDIES["Failed"])


async def _let_go(ctx: Context, claims: Sequence[Claim]) -> str:
    """One step towards the end of all of these. "" when they are released, else what they wait for."""
    hosts = await workload.host_views(ctx, claims)
    waits = [w for w in [await workload.let_go(ctx, c, host=hosts[c.spec.host]) for c in claims] if w]
    return (
        waits[0] if len(waits) < 2 and waits else f"{len(waits)} members are cleared away; {waits[0]}" if waits else ""
    )


def _late(job: Job, now: float) -> bool:
    """Whether its deadline passed. Its hosts end what runs by themselves, a little earlier or later."""
    started, deadline = job.status.started_at, job.spec.deadline_seconds
    return started is not None and deadline is not None and now >= epoch(started) + deadline


def _deadline(job: Job) -> str:
    return f"it had not ended {job.spec.deadline_seconds} s after its start"


def _held(status: JobStatus, hold: Hold) -> Outcome:
    """No place is taken, and none of what was known of hosts holds."""
    update: dict[str, Any] = {**hold.waiting, "remedy": hold.remedy, "members": {}, "hosts": []}
    return _wait(
        status.model_copy(update=update), "Pending", reason=hold.reason, message=hold.message, again=hold.again
    )


def _wait(status: JobStatus, phase: JobPhase, *, reason: str, message: str, again: float) -> Outcome:
    remedy = status.remedy or REMEDIES.get(phase, "")
    status = status.model_copy(update={"phase": phase, "message": message})
    return Wait(reason=reason, message=message, status=status, again=again, remedy=remedy)
