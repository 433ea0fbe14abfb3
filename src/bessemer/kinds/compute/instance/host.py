"""The Instance on its host: a disk, a seed, a QEMU process and what the guest reports.

One `converge` is: observe (process, report) → `decide`, which is pure → act. Invariants: phase Running means that this
very process's guest reported what was asked; a guest that died while it should run is Lost until it runs again; what a
guest writes is bounded and parsed as hostile input.

Who pays: nothing is billed until a guest has reported well, since a failure to boot is the platform's or the image's.
So nothing may run, or be held, by not reporting well, or by not lasting. A guest that is silent for `SILENT_SECONDS`,
reports anything else than was asked, ends before it reported, or reports well and ends before `CALM_SECONDS` are over,
is booted anew as its restart policy says, at most `BOOTS` times in a row. Then it is given up: Failed, and the control
side takes the place back; or, where this disk has seen a good guest (`booted`) and may hold somebody's data, Stopped,
which keeps disk and place and is billed as stopped. A guest that was good for longer has all its boots again; one that
an earlier agent started may have ended with its machine, which is no try of its own.

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

from bessemer.core.clock import rfc3339
from bessemer.core.errors import DriverError
from bessemer.core.resource import Done, Fail, Outcome
from bessemer.core.units import show_bytes
from bessemer.drivers.guest.protocol import MEMORY_SLACK_BYTES, REPORT_LIMIT_BYTES, seed_files
from bessemer.drivers.qemu.protocol import Console, MachineSpec, Running
from bessemer.kinds.compute.instance.machine import cells_of, tree_of, wanted_of
from bessemer.kinds.compute.instance.spec import GuestReport, InstanceIntent
from bessemer.kinds.context import HostContext
from bessemer.kinds.fleet.claim import Claim, ClaimStatus
from bessemer.kinds.host_side import Pass, clear
from bessemer.kinds.retry import CALM_SECONDS, Retry

SILENT_SECONDS = {"kvm": 60.0, "tcg": 180.0}
"""How long a guest may boot before it counts as silent."""

BOOTS = 3
"""Boots in a row that may come to nothing, or not last."""

SHUTDOWN_GRACE_SECONDS = 10.0
BOOT_LOOK_SECONDS = 0.5
LAST_WORDS_BYTES = 512
DEAD_STATES = frozenset({"shutdown", "guest-panicked", "internal-error"})
"""Words of QMP for a guest that is over although its process lives."""

_Pass = Pass[InstanceIntent]
Step = Literal["rest", "announce", "start", "ended", "hold", "remain", "judge", "watch", "announce-stop", "stop"]


class SaidReport(GuestReport):
    """A report as it arrives."""

    nonce: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a report amounts to. ``reason`` "" is a good one; None report and "" means: nothing said yet."""

    report: GuestReport | None = None
    reason: str = ""
    message: str = ""


_DIED = Verdict(reason="GuestDied", message="the guest does not run any more")


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


def decide(claim: Claim, intent: InstanceIntent, *, process: Running | None, now: float) -> Step:
    """What comes next. Pure."""
    status = claim.status
    if process is not None and status.phase == "Stopping":
        return "stop"  # carried through whatever is wanted by now: the guest may have heard the power button
    if not intent.running:
        return "rest" if process is None else "announce-stop"
    if process is not None:
        settled = status.phase == "Running" and status.detail.get("process") == identity(process)
        return "watch" if settled else "judge"
    if status.phase == "Stopping":
        return "announce"
    if status.detail.get("process"):
        return "ended"
    if status.phase in ("Stopped", "Failed") and status.reason and not claim.changed:
        return "remain"
    if Retry.read(status.detail).left(now):
        return "hold"
    return "start" if status.phase in ("Preparing", "Lost") else "announce"


def identity(process: Running) -> str:
    """One process for ever: its pid alone would come back."""
    return f"{process.pid}:{process.started_at}"


class InstanceHost:
    """Implements `kinds.host_side.HostSide` and `HasConsole` for Instances."""

    async def converge(self, ctx: HostContext, claim: Claim) -> Outcome:
        this = Pass(ctx, claim, InstanceIntent.model_validate(claim.spec.intent))
        ctx.content.pin(claim.uid, (this.intent.image,))
        process = await ctx.drivers.qemu.find(claim.uid)
        step = decide(claim, this.intent, process=process, now=ctx.clock.now())
        try:
            return await self._act(this, step, process=process)
        except DriverError as error:
            return this.failed(error)

    async def remove(self, ctx: HostContext, claim: Claim) -> Outcome:
        qemu, disks = ctx.drivers.qemu, ctx.drivers.disks

        async def end(uid: str) -> None:
            await ctx.drivers.passthrough.end(uid, wanted_of(claim.spec))

        return await clear(ctx, claim, qemu.kill, qemu.remove, end, disks.remove)

    def log(self, ctx: HostContext, claim: Claim, *, follow: bool) -> AsyncIterator[bytes]:
        return ctx.drivers.qemu.log(claim.uid, follow=follow)

    async def console(self, ctx: HostContext, claim: Claim) -> Console:
        return await ctx.drivers.qemu.console(claim.uid)

    async def _act(self, this: _Pass, step: Step, *, process: Running | None) -> Outcome:
        if step == "start":
            return await _start(this)
        if step == "ended":
            return await _ended(this, _DIED)
        if step == "stop":
            return await _stop(this)
        if step == "judge" and process is not None:
            return await _judge(this, process)
        if step == "watch" and process is not None:
            return await _watch(this)
        if step == "hold":
            return this.hold()
        if step == "remain":
            return _given_up(this.claim.status)
        if step == "announce":
            return _announced(this)
        if step == "announce-stop":
            return _announced_stop(this)
        return _stopped(this)


def _booted(status: ClaimStatus) -> bool:
    """Whether a guest of this disk was ever found good. An agent of an earlier release did not note it: what is Running
    was."""
    return status.phase == "Running" or bool(status.detail.get("booted"))


def _announced(this: _Pass) -> Outcome:
    message, fresh = "the disk, the seed and the image are made ready", dict.fromkeys(("process", "guest", "tries"))
    return this.wait("Preparing", "Preparing", message=message, again=0.0, detail=fresh)


def _announced_stop(this: _Pass) -> Outcome:
    detail = {"booted": _booted(this.claim.status) or None}
    return this.wait("Stopping", "Stopping", message="the guest is asked to power off", again=0.0, detail=detail)


def _stopped(this: _Pass) -> Outcome:
    fresh = dict.fromkeys(("process", "guest", "tries", "retry"))
    status = this.status("Stopped", pid=None, started_at=None, detail=fresh)
    return Done(status=status, ready=False, reason="Stopped", message="stopped as asked")


async def _start(this: _Pass) -> Outcome:
    """Bring the image, make disk and seed, take its devices, start QEMU. Each is found again when this is run twice."""
    ctx, claim, intent = this.ctx, this.claim, this.intent
    image = await ctx.content.ensure(intent.image)
    disks = [await ctx.drivers.disks.create(claim.uid, intent.disk_bytes)] if intent.disk_bytes else []
    files = seed_files(instance_id=claim.spec.workload.uid, hostname=intent.hostname, nonce=nonce_of(claim))
    seed = await ctx.drivers.disks.seed(claim.uid, files)
    wanted = wanted_of(claim.spec)
    handed = await ctx.drivers.passthrough.hand(claim.uid, wanted) if wanted else ()
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
            numa=cells_of(claim.spec, cpus=intent.cpus, memory_bytes=intent.memory_bytes),
            own_cpus=claim.spec.own_cpus,
            page_bytes=max((part.page_bytes for part in claim.spec.allocations), default=0),
            tree=tree_of(claim.spec, handed),
            nodes=tuple(sorted({node for one in handed for node in one.nodes})),
        )
    )
    return _started(this, process)


def _started(this: _Pass, process: Running) -> Outcome:
    """A process that has still to be found good: its time begins now."""
    detail = {"process": identity(process), "guest": None}
    changes = {"detail": detail, "pid": process.pid, "started_at": rfc3339(this.ctx.clock.now())}
    return this.wait("Starting", "Booting", message="the guest boots", again=BOOT_LOOK_SECONDS, **changes)


async def _judge(this: _Pass, process: Running) -> Outcome:
    """A guest that has not yet been found good: look at its report."""
    if this.claim.status.detail.get("process") != identity(process):
        # Started by us just before a crash, or by an agent before us: its time begins now.
        return _started(this, process)
    verdict = judge(await this.ctx.drivers.qemu.report(this.claim.uid), this.intent, nonce=nonce_of(this.claim))
    if verdict.reason:
        return await _ended(this, verdict)
    if verdict.report is not None:
        return this.running(detail={"guest": verdict.report.dump(), "booted": True})
    if await _over(this):
        return await _ended(this, _DIED)
    if this.age() < 0:  # the wall clock stepped back, which is not the guest's fault
        return _started(this, process)
    limit = SILENT_SECONDS["kvm" if this.ctx.virtualization == "kvm" else "tcg"]
    if this.age() > limit:
        message = f"the guest has reported nothing for {int(this.age())} s; it should within {int(limit)} s"
        return await _ended(this, Verdict(reason="GuestSilent", message=message))
    return this.wait("Starting", "Booting", message="the guest boots", again=BOOT_LOOK_SECONDS)


async def _watch(this: _Pass) -> Outcome:
    """A guest that was found good: see that it is still there."""
    if await _over(this):
        return await _ended(this, _DIED)
    return this.running(detail={"tries": None} if this.age() > CALM_SECONDS else {})


async def _over(this: _Pass) -> bool:
    """Whether the guest is over although its process lives: one that panicked says nothing more."""
    try:
        state = await this.ctx.drivers.qemu.state(this.claim.uid)
    except DriverError:
        # QEMU that does not answer may be busy; a process that is gone is seen by `find`.
        return False
    return state is None or state.status in DEAD_STATES


async def _ended(this: _Pass, why: Verdict) -> Outcome:
    """It should run and does not, or is of no use: end it, then once more after a while, or give it up."""
    await this.ctx.drivers.qemu.kill(this.claim.uid)
    status, policy = this.claim.status, this.intent.restart_policy
    calm = status.phase == "Running" and this.age() > CALM_SECONDS
    tries = 0 if calm else int(status.detail.get("tries", 0)) + (0 if this.inherited() else 1)
    gone: dict[str, Any] = {"pid": None, "started_at": None}
    booted, guest = _booted(status) or None, why.report.dump() if why.report else None
    detail = {"process": None, "guest": guest, "tries": tries or None, "booted": booted}
    if policy == "Always" and tries < BOOTS:
        again = f"{why.message}; start {status.restarts + 2} follows"
        error = DriverError(why.reason, again)
        return this.failed(error, phase="Lost", restarts=status.restarts + 1, detail=detail, **gone)
    limit = "its restart policy is Never" if policy == "Never" else f"{tries} boots in a row came to nothing"
    # Stopped: it is as its owner asked, or holds what its owner may want; the place that it keeps is billed.
    phase = "Stopped" if booted else "Failed"
    words = {"reason": why.reason, "message": f"{why.message}, and {limit}{await _last_words(this)}"}
    return _given_up(this.status(phase, detail=detail, **words, **gone))


def _given_up(status: ClaimStatus) -> Outcome:
    """No further try until it is asked for again."""
    if status.phase == "Failed":
        return Fail(reason=status.reason, message=status.message, status=status)
    return Done(status=status, ready=False, reason=status.reason, message=status.message)


async def _last_words(this: _Pass) -> str:
    """The guest's last line, since its log goes with its place; nothing of it that a terminal would obey."""
    tail = b""
    async for piece in this.ctx.drivers.qemu.log(this.claim.uid):
        tail = (tail + piece)[-LAST_WORDS_BYTES:]
    lines = [
        "".join(c for c in line if " " <= c <= "~").strip() for line in tail.decode("ascii", "ignore").splitlines()
    ]
    last = next((line for line in reversed(lines) if line), "")
    return f"; it last printed: {last[:120]}" if last else ""


async def _stop(this: _Pass) -> Outcome:
    await this.ctx.drivers.qemu.shutdown(this.claim.uid, SHUTDOWN_GRACE_SECONDS)
    return _announced(this) if this.intent.running else _stopped(this)
