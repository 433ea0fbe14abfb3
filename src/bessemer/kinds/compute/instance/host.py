"""The Instance on its host: a disk, a seed, a QEMU process and what the guest reports.

One `converge` is: observe (process, report) → `decide`, which is pure → act. Invariants: phase Running means that this
very process's guest reported what was asked; a guest that died while it should run is Lost until it runs again; what a
guest writes is bounded and parsed as hostile input.

The rule for memory: the micro-guest reports what the firmware gave its kernel, which may be less than was asked by at
most `MEMORY_SLACK_BYTES` and never more. The nonce is derived from the claim's uid, which no other tenant knows: a
restarted agent finds it again without having kept it.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ValidationError

from bessemer.core.clock import epoch, rfc3339
from bessemer.core.errors import DriverError
from bessemer.core.resource import Done, Fail, Outcome, Wait
from bessemer.core.units import show_bytes
from bessemer.drivers.guest.protocol import MEMORY_SLACK_BYTES, REPORT_LIMIT_BYTES, seed_files
from bessemer.drivers.qemu.protocol import Console, MachineSpec, Running
from bessemer.kinds.compute.instance.spec import GuestReport, InstanceIntent
from bessemer.kinds.context import HostContext
from bessemer.kinds.fleet.claim import Claim, ClaimStatus
from bessemer.kinds.retry import CALM_SECONDS, Retry

SILENT_SECONDS = {"kvm": 60.0, "tcg": 180.0}
"""How long a guest may boot before it counts as silent."""

SHUTDOWN_GRACE_SECONDS = 10.0
LOOK_SECONDS, LOOK_FAKE_SECONDS, BOOT_LOOK_SECONDS = 5.0, 30.0, 0.5
DEAD_STATES = frozenset({"shutdown", "guest-panicked", "internal-error"})
"""Words of QMP for a guest that is over although its process lives."""

Step = Literal["rest", "announce", "start", "restart", "hold", "give-up", "judge", "watch", "announce-stop", "stop"]


class SaidReport(GuestReport):
    """A report as it arrives."""

    nonce: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a report amounts to. ``reason`` "" is a good one; None report and "" means: nothing said yet."""

    report: GuestReport | None = None
    reason: str = ""
    message: str = ""


def nonce_of(claim: Claim) -> str:
    """The word that a report must carry."""
    return hashlib.sha256(f"bessemer report {claim.uid}".encode()).hexdigest()[:32]


def judge(raw: bytes | None, intent: InstanceIntent, *, nonce: str) -> Verdict:
    """Read a report as hostile input and compare it with what was asked. Pure."""
    if raw is None or (len(raw) <= REPORT_LIMIT_BYTES and not raw.endswith(b"\n")):
        return Verdict()
    if len(raw) > REPORT_LIMIT_BYTES:
        return Verdict(reason="ReportInvalid", message=f"the guest's report is longer than {REPORT_LIMIT_BYTES} bytes")
    try:
        said = SaidReport.model_validate_json(raw)
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"])) or "the report"
        return Verdict(reason="ReportInvalid", message=f"the guest's report cannot be read: {where[:63]} is wrong")
    if not hmac.compare_digest(said.nonce.encode(), nonce.encode()):
        return Verdict(reason="ReportInvalid", message="the guest's report does not carry this guest's nonce")
    report = GuestReport.model_validate(said.model_dump(exclude={"nonce"}))
    least = intent.memory_bytes - MEMORY_SLACK_BYTES
    if report.cpus != intent.cpus or not least <= report.memory_bytes <= intent.memory_bytes:
        asked = f"asked for {intent.cpus} CPUs and {show_bytes(intent.memory_bytes)}"
        had = f"the guest has {report.cpus} and {show_bytes(report.memory_bytes)}"
        return Verdict(report, "GuestMismatch", f"{asked}, {had}")
    return Verdict(report)


def decide(intent: InstanceIntent, status: ClaimStatus, *, process: Running | None, now: float) -> Step:
    """What comes next. Pure."""
    if not intent.running:
        if process is None:
            return "rest"
        return "stop" if status.phase == "Stopping" else "announce-stop"
    if process is not None:
        settled = status.phase == "Running" and status.detail.get("process") == identity(process)
        return "watch" if settled else "judge"
    if status.detail.get("process"):
        return "give-up" if intent.restart_policy == "Never" else "restart"
    if status.phase == "Stopped" and status.reason == "GuestDied" and intent.restart_policy == "Never":
        return "give-up"
    if Retry.read(status.detail).left(now):
        return "hold"
    return "start" if status.phase in ("Preparing", "Lost") else "announce"


def identity(process: Running) -> str:
    """One process for ever: its pid alone would come back."""
    return f"{process.pid}:{process.started_at}"


class InstanceHost:
    """Implements `kinds.host_side.HostSide` and `HasConsole` for Instances."""

    async def converge(self, ctx: HostContext, claim: Claim) -> Outcome:
        intent = InstanceIntent.model_validate(claim.spec.intent)
        ctx.content.pin(claim.uid, (intent.image,))
        process = await ctx.drivers.qemu.find(claim.uid)
        step = decide(intent, claim.status, process=process, now=ctx.clock.now())
        try:
            return await self._act(_Pass(ctx, claim, intent), step, process=process)
        except DriverError as error:
            return _refused(ctx, claim, error=error)

    async def remove(self, ctx: HostContext, claim: Claim) -> Outcome:
        try:
            await ctx.drivers.qemu.kill(claim.uid)
            await ctx.drivers.qemu.remove(claim.uid)
            await ctx.drivers.disks.remove(claim.uid)
        except DriverError as error:
            status = claim.status.model_copy(update={"reason": error.reason, "message": error.message})
            return Wait(reason=error.reason, message=error.message, status=status, again=2.0)
        ctx.content.pin(claim.uid, ())
        return Done(status=ClaimStatus(phase="Gone", restarts=claim.status.restarts), reason="Gone", ready=False)

    def log(self, ctx: HostContext, claim: Claim, *, follow: bool) -> AsyncIterator[bytes]:
        return ctx.drivers.qemu.log(claim.uid, follow=follow)

    async def console(self, ctx: HostContext, claim: Claim) -> Console:
        return await ctx.drivers.qemu.console(claim.uid)

    async def _act(self, this: _Pass, step: Step, *, process: Running | None) -> Outcome:
        if step == "start":
            return await _start(this)
        if step in ("restart", "give-up"):
            return _died(this)
        if step == "stop":
            return await _stop(this)
        if step == "judge" and process is not None:
            return await _judge(this, process)
        if step == "watch" and process is not None:
            return await _watch(this, process)
        if step == "hold":
            left = Retry.read(this.claim.status.detail).left(this.ctx.clock.now())
            status = this.claim.status
            return Wait(reason=status.reason or "Waiting", message=status.message, status=status, again=left)
        if step == "announce":
            return this.wait(
                "Preparing", "Preparing", message="the disk, the seed and the image are made ready", again=0.0
            )
        if step == "announce-stop":
            return this.wait("Stopping", "Stopping", message="the guest is asked to power off", again=0.0)
        return this.stopped()


@dataclass(frozen=True, slots=True)
class _Pass:
    """One look at one claim, and the outcomes it can have."""

    ctx: HostContext
    claim: Claim
    intent: InstanceIntent

    def status(self, phase: str, **changes: Any) -> ClaimStatus:
        """The claim's status with these fields; reason and message are cleared unless given."""
        update = {"phase": phase, "reason": "", "message": "", **changes}
        return self.claim.status.model_copy(update=update)

    def detail(self, **changes: Any) -> dict[str, Any]:
        """The claim's detail with these entries; None takes one out."""
        merged = {**self.claim.status.detail, **changes}
        return {name: value for name, value in merged.items() if value is not None}

    def wait(self, phase: str, reason: str, *, message: str, again: float, **changes: Any) -> Wait:
        status = self.status(phase, reason=reason, message=message, **changes)
        return Wait(reason=reason, message=message, status=status, again=again)

    def stopped(self) -> Done:
        detail = self.detail(process=None, guest=None, retry=None)
        status = self.status("Stopped", pid=None, started_at=None, detail=detail)
        return Done(status=status, ready=False, reason="Stopped", message="stopped as asked")


async def _start(this: _Pass) -> Outcome:
    """Bring the image, make disk and seed, start QEMU. Each is found again when this is run twice."""
    ctx, claim, intent = this.ctx, this.claim, this.intent
    image = await ctx.content.ensure(intent.image)
    disks = [await ctx.drivers.disks.create(claim.uid, intent.disk_bytes)] if intent.disk_bytes else []
    files = seed_files(instance_id=claim.spec.workload.uid, hostname=intent.hostname, nonce=nonce_of(claim))
    seed = await ctx.drivers.disks.seed(claim.uid, files)
    process = await ctx.drivers.qemu.start(
        MachineSpec(
            uid=claim.uid,
            name=intent.hostname,
            cpus=intent.cpus,
            memory_bytes=intent.memory_bytes,
            image=image,
            image_digest=intent.image,
            disks=tuple(disks),
            seed=seed,
            accel="kvm" if ctx.virtualization == "kvm" else "tcg",
        )
    )
    return _started(this, process)


def _started(this: _Pass, process: Running) -> Outcome:
    detail = this.detail(process=identity(process), guest=None)
    started = rfc3339(this.ctx.clock.now())
    message = "the guest boots"
    return this.wait(
        "Starting",
        "Booting",
        message=message,
        again=BOOT_LOOK_SECONDS,
        detail=detail,
        pid=process.pid,
        started_at=started,
    )


async def _judge(this: _Pass, process: Running) -> Outcome:
    """A guest that has not yet been found good: look at its report."""
    status = this.claim.status
    if status.detail.get("process") != identity(process):
        # Started by us just before a crash, or by an agent before us: its time begins now.
        return _started(this, process)
    verdict = judge(await this.ctx.drivers.qemu.report(this.claim.uid), this.intent, nonce=nonce_of(this.claim))
    if verdict.reason:
        changes = {"reason": verdict.reason, "message": verdict.message}
        return Fail(
            reason=verdict.reason,
            message=verdict.message,
            status=this.status("Failed", **changes, detail=this.detail(guest=_shown(verdict.report))),
            again=LOOK_FAKE_SECONDS,
            remedy="look at the log, then delete the instance",
        )
    if verdict.report is None:
        return await _silent(this, process)
    return Done(status=this.status("Running", detail=this.detail(guest=_shown(verdict.report))), again=_look(this))


async def _silent(this: _Pass, process: Running) -> Outcome:
    """Nothing said yet. A guest that panicked will say nothing more: end it, so that it is restarted."""
    if await _over(this):
        await this.ctx.drivers.qemu.kill(this.claim.uid)
        return _died(this)
    limit = SILENT_SECONDS["kvm" if this.ctx.virtualization == "kvm" else "tcg"]
    since = epoch(this.claim.status.started_at) if this.claim.status.started_at else this.ctx.clock.now()
    waited = this.ctx.clock.now() - since
    if 0 <= waited <= limit:
        return this.wait("Starting", "Booting", message="the guest boots", again=BOOT_LOOK_SECONDS)
    message = f"the guest has reported nothing for {max(0, int(waited))} s; it should within {int(limit)} s"
    return this.wait("Starting", "GuestSilent", message=message, again=LOOK_SECONDS)


async def _watch(this: _Pass, process: Running) -> Outcome:
    """A guest that was found good: see that it is still there, and forgive it its past after a while."""
    if await _over(this):
        await this.ctx.drivers.qemu.kill(this.claim.uid)
        return _died(this)
    status = this.claim.status
    calm = status.started_at is not None and this.ctx.clock.now() - epoch(status.started_at) > CALM_SECONDS
    detail = this.detail(retry=None) if calm else status.detail
    return Done(status=this.status("Running", detail=detail), again=_look(this))


async def _over(this: _Pass) -> bool:
    try:
        state = await this.ctx.drivers.qemu.state(this.claim.uid)
    except DriverError:
        # QEMU that does not answer may be busy; a process that is gone is seen by `find`.
        return False
    return state is None or state.status in DEAD_STATES


def _died(this: _Pass) -> Outcome:
    """It ran, it should run, and it does not: restart after a while, or say that the policy forbids it."""
    if this.intent.restart_policy == "Never":
        # Stopped, not Failed: it is as its owner asked, and the place that it holds on to is billed.
        message = "the guest ended, and its restart policy is Never"
        detail = this.detail(process=None, guest=None)
        status = this.status("Stopped", reason="GuestDied", message=message, pid=None, started_at=None, detail=detail)
        return Done(status=status, ready=False, reason="GuestDied", message=message)
    now = this.ctx.clock.now()
    retry = Retry.read(this.claim.status.detail).failed(now)
    detail = this.detail(process=None, guest=None, retry=retry.dump())
    restarts = this.claim.status.restarts + 1
    message = f"the guest ended by itself; start {restarts + 1} follows"
    again = retry.left(now)
    return this.wait(
        "Lost", "GuestDied", message=message, again=again, pid=None, started_at=None, restarts=restarts, detail=detail
    )


async def _stop(this: _Pass) -> Outcome:
    await this.ctx.drivers.qemu.shutdown(this.claim.uid, SHUTDOWN_GRACE_SECONDS)
    return this.stopped()


def _refused(ctx: HostContext, claim: Claim, *, error: DriverError) -> Outcome:
    """A driver refused: try again with backoff, and say so meanwhile."""
    now = ctx.clock.now()
    retry = Retry.read(claim.status.detail).failed(now)
    detail = {**claim.status.detail, "retry": retry.dump()}
    update = {"reason": error.reason, "message": error.message, "detail": detail}
    return Wait(
        reason=error.reason,
        message=error.message,
        status=claim.status.model_copy(update=update),
        again=max(0.1, retry.left(now)),
    )


def _shown(report: GuestReport | None) -> dict[str, Any] | None:
    return report.dump() if report else None


def _look(this: _Pass) -> float:
    return LOOK_FAKE_SECONDS if this.claim.spec.fake else LOOK_SECONDS
