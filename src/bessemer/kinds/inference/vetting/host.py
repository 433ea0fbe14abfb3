"""A Vetting on its host: the engine as a replica has it, and what is asked of it once it answers.

The engine is brought up, watched and ended by the very host side of an Endpoint's replica. Beside it one volley at a
time is under way. What is known stands in the Claim's status after each of them: an agent that comes anew begins the
one that was under way again, as does an engine that ended meanwhile.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from pydantic import ValidationError

from bessemer.core.errors import DriverError
from bessemer.core.resource import Done, Fail, Outcome
from bessemer.drivers.load.protocol import Loads
from bessemer.kinds.context import HostContext
from bessemer.kinds.fleet.claim import Claim, ClaimStatus
from bessemer.kinds.host_side import Pass, clear
from bessemer.kinds.inference.endpoint.host import SECRET, EndpointHost
from bessemer.kinds.inference.vetting.measuring import BROKEN_MAX, Measured, progress, taken, volley_of
from bessemer.kinds.inference.vetting.spec import VettingIntent

LOOK_SECONDS = 1.0
DETAIL = "vetting"
"""Under which what is known stands in the Claim's detail, and beside it how far it is."""

_REPLICA = EndpointHost()


class VettingHost:
    """Implements `kinds.host_side.HostSide` for Vettings."""

    async def converge(self, ctx: HostContext, claim: Claim) -> Outcome:
        intent = VettingIntent.model_validate(claim.spec.intent)
        outcome = await _REPLICA.converge(ctx, _as_replica(claim, intent))
        status = outcome.status
        if not isinstance(outcome, Done) or not isinstance(status, ClaimStatus) or status.phase != "Running":
            return outcome
        this = Pass(ctx, claim.model_copy(update={"status": status}), intent)
        had = measured(status)
        if had.done:
            return outcome
        if ctx.drivers.loads is None:
            return _failed(this, "LoadMissing", message="this agent measures no engines")
        try:
            return await _measure(this, had, loads=ctx.drivers.loads)
        except DriverError as error:
            return this.wait("Running", error.reason, message=error.message, again=LOOK_SECONDS)

    async def remove(self, ctx: HostContext, claim: Claim) -> Outcome:
        async def ended(uid: str) -> None:
            if ctx.drivers.loads is not None:
                await ctx.drivers.loads.end(uid)

        return await clear(ctx, claim, ended, ctx.drivers.engine.stop)

    def log(self, ctx: HostContext, claim: Claim, *, follow: bool) -> AsyncIterator[bytes]:
        return _REPLICA.log(ctx, claim, follow=follow)


def measured(status: ClaimStatus) -> Measured:
    """What the claim says that is known. What cannot be read is nothing: a host may be anybody's in the end."""
    try:
        return Measured.model_validate(status.detail.get(DETAIL) or {})
    except ValidationError:
        return Measured()


def _as_replica(claim: Claim, intent: VettingIntent) -> Claim:
    spec = claim.spec.model_copy(update={"intent": intent.replica().dump()})
    return claim.model_copy(update={"spec": spec})


async def _measure(this: Pass[VettingIntent], had: Measured, *, loads: Loads) -> Outcome:
    """One look at the volley that is under way, or the begin of the next."""
    ctx, uid, process = this.ctx, this.claim.uid, str(this.claim.status.detail.get("process", ""))
    if had.process != process:
        # Another engine than the one that was asked, or none was yet: what is under way is begun again.
        await loads.end(uid)
        had = had.model_copy(update={"process": process})
    volley = volley_of(this.intent, had)
    if volley is None:
        return await _over(this, had, loads=loads)
    look = await loads.look(uid, volley.number)
    if look is None:
        secret = (await ctx.secrets.get(uid))[SECRET]
        await loads.begin(uid, secret, volley=volley)
        return _goes_on(this, had, share=0.0)
    if look.hits is None:
        return _goes_on(this, had, share=look.share)
    had = await _weighed(this, taken(this.intent, had, volley=volley, hits=look.hits))
    if had.done:
        return await _over(this, had, loads=loads)
    if had.broken > BROKEN_MAX:
        message = f"of {len(volley.shots)} requests one after the other not all were answered, {had.broken} times"
        return _failed(this, "NotAnswered", message=message)
    # A volley has ended: what is known by now is written down before the next begins.
    return _goes_on(this, had, share=0.0)


async def _weighed(this: Pass[VettingIntent], had: Measured) -> Measured:
    """With the most memory that its engine had."""
    stats = await this.ctx.drivers.engine.stats(this.claim.uid)
    # Weights that somebody read before are in memory, and count as the reader's: those that are mapped count here, too.
    most = max(had.memory_bytes, *((stats.memory_peak_bytes, stats.resident_bytes) if stats is not None else (0,)))
    return had.model_copy(update={"memory_bytes": most})


async def _over(this: Pass[VettingIntent], had: Measured, *, loads: Loads) -> Outcome:
    """All is known: nothing is asked any more until the claim is let go."""
    await loads.end(this.claim.uid)
    had = had.model_copy(update={"done": True})
    return this.running(detail={DETAIL: had.dump(), "percent": 100})


def _goes_on(this: Pass[VettingIntent], had: Measured, *, share: float) -> Outcome:
    percent = progress(this.intent, had, share=share)
    detail: dict[str, Any] = {DETAIL: had.dump(), "percent": percent}
    count = len(had.points)
    rate = f", {count} rate{'s' if count > 1 else ''} so far" if count else ""
    message = f"{percent} %: {'measured' if had.checks else 'asked'}{rate}"
    return this.wait("Running", "Measuring", message=message, again=LOOK_SECONDS, detail=detail)


def _failed(this: Pass[VettingIntent], reason: str, *, message: str) -> Outcome:
    status = this.status("Failed", reason=reason, message=message)
    remedy = "See the engine's log; delete the vetting."
    return Fail(reason=reason, message=message, status=status, again=300.0, remedy=remedy)
