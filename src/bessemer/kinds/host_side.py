"""What an agent runs for a Claim: the half of a kind that lives on a host.

An agent's loop has one kind, Claim; whose host side it calls stands in ``spec.workload.kind`` (`kinds.HOST_SIDES`). A
host side keeps nothing in memory: it observes through the drivers by the Claim's uid, decides purely over that and the
Claim's last status, acts, and returns the new `ClaimStatus` in its outcome. So an agent may die at any call and be
another program when it comes back.

How an outcome reads: ``Done`` with status Running or Stopped is what was asked; ``Wait`` and ``Fail`` carry the reason
that is in ``status.reason`` too. The agent writes the status as it is and looks again after ``again`` seconds.

`Pass` is what host sides of one process per Claim share: how what they found becomes a status. What comes next, and
what a process must have shown to count, is each kind's own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from bessemer.core.clock import epoch
from bessemer.core.errors import DriverError
from bessemer.core.resource import Done, Outcome, Wait
from bessemer.drivers.qemu.protocol import Console
from bessemer.kinds.context import HostContext
from bessemer.kinds.fleet.claim import Claim, ClaimStatus
from bessemer.kinds.retry import CALM_SECONDS, Retry

LOOK_SECONDS, LOOK_FAKE_SECONDS = 5.0, 30.0
"""How often what runs is looked at."""

REMEDIES: Mapping[str, str] = MappingProxyType(
    {
        "Preparing": "See whether the host's disk is full and whether it reaches the control plane's content.",
        "Starting": "See how far its log comes; delete its workload to give the place back.",
        "Stopping": "Delete its workload if nothing of it is needed.",
        "Lost": "See what its log ends with; delete its workload to give the place back.",
    }
)
"""By the claim's phase, what a person can do about one that waits in it for too long."""

Intent = TypeVar("Intent")


class HostSide(Protocol):
    """The host's half of one kind of workload."""

    async def converge(self, ctx: HostContext, claim: Claim) -> Outcome:
        """One step towards the claim's intent; its status is a `ClaimStatus`."""
        ...

    async def remove(self, ctx: HostContext, claim: Claim) -> Outcome:
        """Leave nothing of the claim on this host. ``Done``: the agent reports Gone and forgets it."""
        ...

    def log(self, ctx: HostContext, claim: Claim, *, follow: bool) -> AsyncIterator[bytes]:
        """What the workload printed, from the oldest byte kept."""
        ...


@runtime_checkable
class HasConsole(Protocol):
    """A host side whose workload has a serial console to type into."""

    async def console(self, ctx: HostContext, claim: Claim) -> Console:
        """Attach. Raises DriverError ``GuestNotRunning``, ``ConsoleBusy``."""
        ...


@runtime_checkable
class HasKept(Protocol):
    """A host side that keeps what a workload printed after its claim is gone, under a name that both sides make."""

    def kept(self, ctx: HostContext, name: str) -> AsyncIterator[bytes]:
        """What was kept under the name."""
        ...


@dataclass(frozen=True, slots=True)
class Pass(Generic[Intent]):
    """One look at one claim, and the outcomes it can have. ``changes`` are fields of its status, ``detail`` among them
    entries of its detail: what is not named stays, and None takes an entry out."""

    ctx: HostContext
    claim: Claim
    intent: Intent

    def status(self, phase: str, *, detail: Mapping[str, Any] = MappingProxyType({}), **changes: Any) -> ClaimStatus:
        """The claim's status with these changes; reason and message are cleared unless given."""
        merged = {**self.claim.status.detail, **detail}
        kept = {name: value for name, value in merged.items() if value is not None}
        update = {"phase": phase, "reason": "", "message": "", "detail": kept, **changes}
        return self.claim.status.model_copy(update=update)

    def wait(self, phase: str, reason: str, *, message: str, again: float, **changes: Any) -> Wait:
        status = self.status(phase, reason=reason, message=message, **changes)
        return Wait(reason=reason, message=message, status=status, again=again, remedy=REMEDIES.get(phase, ""))

    def hold(self) -> Wait:
        """It failed, and is left alone for a while."""
        status = self.claim.status
        left = Retry.read(status.detail).left(self.ctx.clock.now())
        remedy = REMEDIES.get(status.phase, "")
        return Wait(reason=status.reason or "Waiting", message=status.message, status=status, again=left, remedy=remedy)

    def age(self) -> float:
        """Seconds since the process was started; below 0 after the clock jumped back."""
        since = self.claim.status.started_at
        return self.ctx.clock.now() - epoch(since) if since else 0.0

    def inherited(self) -> bool:
        """Whether the process was started before this agent was: it may have ended with its machine, or by `down`."""
        since = self.claim.status.started_at
        return since is not None and epoch(since) < self.ctx.began

    def running(self, **changes: Any) -> Done:
        """It is found good, or was and still lives; after a while its past is forgiven."""
        status = self.status("Running", **changes)
        if self.age() > CALM_SECONDS:
            status.detail.pop("retry", None)
        return Done(status=status, again=LOOK_FAKE_SECONDS if self.claim.spec.fake else LOOK_SECONDS)

    def failed(
        self, error: DriverError, *, phase: str = "", detail: Mapping[str, Any] = MappingProxyType({}), **changes: Any
    ) -> Wait:
        """A driver refused, or the process is gone: again with backoff, and say so meanwhile. ``phase`` "" keeps the
        one that it is in."""
        now, phase = self.ctx.clock.now(), phase or self.claim.status.phase
        retry = Retry.read(self.claim.status.detail).failed(now)
        again, detail = max(0.1, retry.left(now)), {**detail, "retry": retry.dump()}
        return self.wait(phase, error.reason, message=error.message, again=again, detail=detail, **changes)


async def clear(ctx: HostContext, claim: Claim, *steps: Callable[[str], Awaitable[None]]) -> Outcome:
    """Take away what is there of the claim, step by step by its uid; then nothing keeps its content either."""
    try:
        for step in steps:
            await step(claim.uid)
    except DriverError as error:
        status = claim.status.model_copy(update={"reason": error.reason, "message": error.message})
        remedy = "See the agent's log on the host."
        return Wait(reason=error.reason, message=error.message, status=status, again=2.0, remedy=remedy)
    ctx.content.pin(claim.uid, ())
    return Done(status=ClaimStatus(phase="Gone", restarts=claim.status.restarts), reason="Gone", ready=False)
