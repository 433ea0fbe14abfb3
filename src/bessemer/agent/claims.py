"""The one kind of an agent's loop: Claim, run by the host side that ``spec.workload.kind`` names.

Nothing of a workload is known here. A host side's ``Done`` of `remove` becomes phase Gone, which is the agent's word
that nothing is left; what no Claim of this host accounts for is an orphan, and taken away.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Set
from types import MappingProxyType

import structlog

from bessemer.agent.intent import GONE
from bessemer.core.resource import Done, Fail, Kind, Outcome
from bessemer.kinds.context import HostContext, HostDrivers
from bessemer.kinds.fleet.claim import Claim
from bessemer.kinds.host_side import HostSide

log = structlog.get_logger(__name__)

DEADLINES: Mapping[str, float] = MappingProxyType(
    {"Pending": 60.0, "Preparing": 900.0, "Starting": 600.0, "Stopping": 120.0, "Lost": 600.0}
)
"""Seconds after which a Claim that still waits in the phase says that it is stuck."""

Sides = Mapping[str, HostSide]
"""Host sides by workload kind."""


async def _nothing() -> None:
    """What comes first where nothing does."""


def claim_kind(
    sides: Sides, *, first: Callable[[], Awaitable[None]] = _nothing, last: Callable[[], Awaitable[None]] = _nothing
) -> Kind[HostContext, Claim]:
    """Claim with the host's half in place of the control side's. ``first`` comes before each step of one, ``last``
    before the word that nothing of it is left."""

    async def reconcile(ctx: HostContext, claim: Claim) -> Outcome:
        await first()
        side = sides.get(claim.spec.workload.kind)
        return _unknown(claim) if side is None else await side.converge(ctx, claim)

    async def finalize(ctx: HostContext, claim: Claim) -> Outcome:
        side = sides.get(claim.spec.workload.kind)
        if claim.status.phase == GONE:
            return Done(status=claim.status, ready=False, reason=GONE)
        if side is None:
            return _unknown(claim)
        outcome = await side.remove(ctx, claim)
        if not isinstance(outcome, Done):
            return outcome
        await last()
        return _gone(claim, outcome)

    return Kind(
        resource=Claim,
        plural="claims",
        namespaced=True,
        rights={},
        reconcile=reconcile,
        finalize=finalize,
        deadlines=DEADLINES,
    )


def _gone(claim: Claim, outcome: Done) -> Done:
    status = claim.status if outcome.status is None else outcome.status
    gone = status.model_copy(update={"phase": GONE, "reason": "", "message": ""})
    return Done(status=gone, ready=False, reason=GONE, message="nothing of it is left on the host")


def _unknown(claim: Claim) -> Fail:
    message = f"this agent cannot run a {claim.spec.workload.kind}"
    status = claim.status.model_copy(update={"phase": "Failed", "reason": "KindUnknown", "message": message})
    return Fail(reason="KindUnknown", message=message, status=status, remedy="update the agent of this host")


async def sweep(drivers: HostDrivers, known: Callable[[], Set[str]]) -> list[str]:
    """Take away every effect on this host whose uid is not ``known``; the uids. Call it only once the api has said
    which Claims there are. Raises DriverError; what was not reached is reached the next time."""
    # Effects are read before the intents: an effect begins only after its intent, so one that is seen here and not
    # known afterwards has none.
    found = {engine.uid for engine in await drivers.engine.running()}
    found |= await drivers.jobs.uids()
    found |= await drivers.qemu.uids()
    found |= await drivers.disks.uids()
    found |= await drivers.passthrough.uids()
    orphans = sorted(found - known())
    for uid in orphans:
        log.warning("orphan removed", object_uid=uid)
        await drivers.engine.stop(uid)
        await drivers.jobs.remove(uid)
        await drivers.qemu.remove(uid)
        await drivers.passthrough.end(uid)
        await drivers.disks.remove(uid)
    return orphans
