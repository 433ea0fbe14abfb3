"""One member of a Job on its host: a process that is started once, and how it ended.

One `converge` is: observe (the process, and how it ended) → `decide`, which is pure → act. Invariants: a process is
started once for each Claim, also by an agent that was killed in between; how it ended is said once, with the exit
status that the driver kept; past the job's deadline it is ended here, whether or not the control plane is there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Literal

import structlog

from bessemer.core.clock import rfc3339
from bessemer.core.errors import DriverError
from bessemer.core.resource import Done, Outcome
from bessemer.drivers.jobs.protocol import MemberSpec, RunningMember
from bessemer.drivers.process.protocol import End, Ended
from bessemer.kinds.context import HostContext
from bessemer.kinds.fleet.claim import Claim, ClaimStatus
from bessemer.kinds.host_side import Pass, clear
from bessemer.kinds.jobs.job.spec import JobIntent, output_name
from bessemer.kinds.retry import Retry

log = structlog.get_logger(__name__)

LOOK_SECONDS, LOOK_SECONDS_MAX, LOOK_PART = 1.0, 5.0, 0.05
"""How often a member that runs is looked at: its end is what the gang waits for, the sooner the shorter it runs. So it
waits for this part of the member's time, within bounds."""

_Pass = Pass[JobIntent]
Step = Literal["announce", "start", "watch", "late", "ended", "lost", "hold", "rest"]


def decide(status: ClaimStatus, member: RunningMember | None, *, end: Ended | None, now: float, ends: int) -> Step:
    """What comes next. Pure."""
    if "end" in status.detail:
        return "rest"
    late = 0 < ends <= now
    if member is None and end is not None and not (late and end.reason is End.KILLED):
        return "ended"
    if late:
        return "late"
    if member is not None:
        return "watch"
    if status.detail.get("process"):
        return "lost"
    if Retry.read(status.detail).left(now):
        return "hold"
    return "start" if status.phase == "Preparing" else "announce"


class JobHost:
    """Implements `kinds.host_side.HostSide` for members of Jobs."""

    async def converge(self, ctx: HostContext, claim: Claim) -> Outcome:
        this = Pass(ctx, claim, JobIntent.model_validate(claim.spec.intent))
        member = await ctx.drivers.jobs.find(claim.uid)
        end = await ctx.drivers.jobs.ended(claim.uid) if member is None else None
        step = decide(claim.status, member, end=end, now=ctx.clock.now(), ends=this.intent.ends)
        if step == "rest":
            return _rest(claim.status)
        try:
            if step == "start":
                return _watched(this, await ctx.drivers.jobs.start(_spec(this)))
            if step == "late":
                await ctx.drivers.jobs.kill(claim.uid)
                message = "the job's deadline passed, and it was ended"
                return _said(this, "DeadlineExceeded", code=None, message=message)
        except DriverError as error:
            return this.failed(error)
        if step == "watch" and member is not None:
            return _watched(this, member)
        if step == "ended" and end is not None:
            return _ended(this, end)
        if step == "lost":
            return _said(this, "MemberLost", code=None, message="nothing is known of how it ended")
        if step == "hold":
            return this.hold()
        return this.wait("Preparing", "Preparing", message="the member is about to be started", again=0.0)

    async def remove(self, ctx: HostContext, claim: Claim) -> Outcome:
        """What it printed is kept: who asks why it failed does so when its place is long given back."""
        ref, attempt = claim.spec.workload, JobIntent.model_validate(claim.spec.intent).attempt
        name = output_name(ref.uid, rank=ref.replica, attempt=attempt)

        async def keep(uid: str) -> None:
            await ctx.drivers.jobs.kill(uid)
            try:
                await ctx.drivers.jobs.keep(uid, name)
            except DriverError as error:
                if error.reason != "DiskFull":
                    raise
                # Devices are worth more than words: the place is given back, and what it printed is lost.
                log.warning("output is not kept", object_uid=uid, error=error.message, internal=error.internal)

        return await clear(ctx, claim, keep, ctx.drivers.jobs.remove)

    def log(self, ctx: HostContext, claim: Claim, *, follow: bool) -> AsyncIterator[bytes]:
        return ctx.drivers.jobs.log(claim.uid, follow=follow)

    def kept(self, ctx: HostContext, name: str) -> AsyncIterator[bytes]:
        return ctx.drivers.jobs.kept(name)


def _spec(this: _Pass) -> MemberSpec:
    intent = this.intent
    return MemberSpec(
        uid=this.claim.uid,
        words=tuple(intent.words),
        cores_milli=intent.cores_milli,
        memory_bytes=intent.memory_bytes,
        script=intent.script,
        hosts=intent.hosts,
        devices=tuple(this.claim.spec.devices),
        own_cpus=this.claim.spec.own_cpus,
        env=intent.env,
    )


def _watched(this: _Pass, member: RunningMember) -> Outcome:
    """It lives: started by us just now, or by an agent before us."""
    process = f"{member.pid}:{member.started_ticks}"
    changes: dict[str, Any] = {"pid": member.pid}
    if this.claim.status.detail.get("process") != process:
        changes["started_at"] = rfc3339(this.ctx.clock.now())
    status = this.status("Running", detail={"process": process, "retry": None}, **changes)
    again = (
        LOOK_SECONDS_MAX if this.claim.spec.fake else max(LOOK_SECONDS, min(LOOK_SECONDS_MAX, this.age() * LOOK_PART))
    )
    if this.intent.ends:
        again = min(again, max(0.1, this.intent.ends - this.ctx.clock.now()))
    return Done(status=status, again=again)


def _ended(this: _Pass, end: Ended) -> Outcome:
    """By itself, for want of memory, or in a way that is none of the job's: unseen, or by our own `down`."""
    if end.reason is End.EXITED:
        return _said(this, "", code=0, message="it ended with status 0")
    if end.reason is End.OUT_OF_MEMORY:
        return _said(this, "OutOfMemory", code=end.code, message=f"it {end.message}")
    if end.reason is End.KILLED or end.code is None:
        return _said(this, "MemberLost", code=None, message=f"it {end.message}")
    return _said(this, "MemberFailed", code=end.code, message=f"it ended with {end.message}")


def _said(this: _Pass, reason: str, *, code: int | None, message: str) -> Outcome:
    """How it ended, kept for good."""
    end = {"reason": reason, "code": code, "at": this.ctx.clock.now()}
    status = this.status("Failed" if reason else "Stopped", detail={"end": end, "retry": None}, pid=None)
    return _rest(status.model_copy(update={"reason": reason, "message": message}))


def _rest(status: ClaimStatus) -> Outcome:
    """Nothing is left to do but to be let go."""
    return Done(status=status, ready=False, reason=status.reason or "Ended", message=status.message)
