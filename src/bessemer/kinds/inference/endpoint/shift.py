"""Which replicas of an Endpoint stay, which go, and which are to come: also where one is moved, or is of another
revision, and another is to answer before it goes.

A replica counts whatever its number is: what comes for another has a number of its own, and stays. Who answers is told
first that it ends, and goes on with what it answers; who does not answer is missed by nobody.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace

from bessemer.core.clock import rfc3339
from bessemer.core.notices import CONSOLIDATION, DRAINED, PREEMPTED, SPARED, Notice
from bessemer.core.ports import CONTROLLER
from bessemer.core.resource import Outcome, set_condition
from bessemer.kinds.context import Context
from bessemer.kinds.fleet.claim import Claim
from bessemer.kinds.inference.endpoint.spec import EndpointStatus
from bessemer.kinds.turns import notice_of

RELIEF_SECONDS = 30
"""For so long a replica that is moved goes on with what it has once another answers in its place."""

MOVED = "Another replica answers on another host, so that what is free lies together"
REPLACED = "Others answer in its place"

MOVING = "Moving"
"""Condition of an Endpoint of which a replica is to be on another host."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many are ``wanted``, and how many may be more (``surge``) or be missing (``unavailable``) while those of
    another revision are replaced."""

    wanted: int
    surge: int = 1
    unavailable: int = 0


@dataclass(frozen=True, slots=True)
class Shift:
    """``staying`` are the replicas that are to be; ``moved`` stay beside them until others answer in their place, and
    of those ``relieved`` have others that do; ``old`` are of other revisions, and stay as well, for now. ``drained``
    end as told, ``spared`` need not end after all. Who stands and is in none of them goes at once."""

    staying: Sequence[Claim] = ()
    moved: Sequence[Claim] = ()
    relieved: Sequence[Claim] = ()
    old: Sequence[Claim] = ()
    drained: Sequence[Claim] = ()
    spared: Sequence[Claim] = ()

    @property
    def stay(self) -> frozenset[str]:
        """Uids of all that do not go at once."""
        parts = (self.staying, self.moved, self.relieved, self.old, self.drained)
        return frozenset(claim.uid for part in parts for claim in part)


def shift(
    standing: Sequence[Claim],
    *,
    bounds: Bounds,
    moved: Set[str],
    silent: Set[str] = frozenset(),
    old: Set[str] = frozenset(),
) -> Shift:
    """Pure. ``standing`` are the claims that nothing else ends, ``moved`` uids of those that are to be elsewhere,
    ``old`` of those of other revisions, ``silent`` of those whose hosts are not heard of: what they say of themselves
    is of before."""

    def answers(claim: Claim) -> bool:
        return claim.status.phase == "Running" and claim.uid not in silent

    def serves(claim: Claim) -> bool:
        """Whether it answers what is new, and goes on to: who was told for somebody else's sake does not."""
        return answers(claim) and not _is_stopped(claim)

    wanted = bounds.wanted
    ordered = sorted(standing, key=lambda claim: claim.spec.workload.replica)
    current = [claim for claim in ordered if claim.uid not in old]
    staying = [claim for claim in current if claim.uid not in moved]
    if len(staying) > wanted:
        # Where a move was given up both are there, and the number says nothing of which one answers.
        staying.sort(key=lambda claim: (not serves(claim), not answers(claim), is_drained(claim)))
    staying, more = staying[:wanted], staying[wanted:]
    leaving = [claim for claim in current if claim.uid in moved]
    answering = sum(map(serves, staying))
    # As many of those that are moved stay as do not answer elsewhere yet.
    stay = max(0, wanted - answering)
    lasting = [claim for claim in ordered if claim.uid in old and _lasts(claim, silent)]
    # Of those of other revisions as many stay as are not to be missing: first those that answer.
    lasting.sort(key=lambda claim: (not serves(claim), not answers(claim), is_drained(claim)))
    needed = max(0, stay - bounds.unavailable)
    kept, rest = lasting[:needed], lasting[needed:]
    return Shift(
        staying,
        leaving[:stay],
        leaving[stay:],
        kept,
        [claim for claim in (*rest, *more) if answers(claim)],
        [claim for claim in (*staying, *kept) if is_drained(claim)],
    )


def _lasts(claim: Claim, silent: Set[str]) -> bool:
    """Whether it answers, or has, and may again: what never did is missed by nobody."""
    return claim.status.phase in ("Running", "Lost") or claim.uid in silent


def room(parts: Shift, *, bounds: Bounds, leaving: int, others: int | None = None) -> int:
    """How many may come. What is cleared away has its place until it is gone: ``leaving`` of those that are wanted;
    ``others`` are all claims that are not ``staying``, None where none is of another revision."""
    lacking = bounds.wanted - len(parts.staying) - leaving
    if others is not None:
        lacking = min(lacking, bounds.wanted + bounds.surge - len(parts.staying) - others)
    return max(0, lacking)


async def drain(ctx: Context, parts: Shift, *, seconds: int) -> None:
    """Tell those that end, in time for what they are answering; and those that were told and need not, that they stay.
    Harmless when repeated."""
    notice = Notice(int(ctx.clock.now()) + seconds, REPLACED, DRAINED)
    for claim in parts.drained:
        if notice_of(claim) is None:
            await ctx.capacity.retire(claim.key, CONTROLLER, uid=claim.uid, notice=notice)
    for claim in parts.spared:
        await ctx.capacity.retire(claim.key, CONTROLLER, uid=claim.uid, notice=SPARED)


def is_drained(claim: Claim) -> bool:
    """Whether it was told that it ends since nobody needs it any more."""
    notice = notice_of(claim)
    return notice is not None and notice.reason == DRAINED


def _is_stopped(claim: Claim) -> bool:
    notice = notice_of(claim)
    return notice is not None and notice.reason == PREEMPTED


async def relieve(ctx: Context, claims: Sequence[Claim]) -> None:
    """Tell those for whom others answer that they end, in time for what they are answering to be answered: the gateway
    has nothing new for whoever was told. The first that one is told stays."""
    notice = Notice(int(ctx.clock.now()) + RELIEF_SECONDS, MOVED, CONSOLIDATION)
    for claim in claims:
        if notice_of(claim) is None:
            await ctx.capacity.retire(claim.key, CONTROLLER, uid=claim.uid, notice=notice)


def is_moved(claim: Claim) -> bool:
    """Whether it was told that it ends since it is to be elsewhere, or another is."""
    notice = notice_of(claim)
    return notice is not None and notice.reason == CONSOLIDATION


def numbers_of(held: Set[int], *, count: int) -> Sequence[int]:
    """The lowest numbers that nobody has."""
    found: list[int] = []
    number = 0
    while len(found) < count:
        if number not in held:
            found.append(number)
        number += 1
    return found


def told(outcome: Outcome, moved: Sequence[Claim], *, trouble: str, now: float) -> Outcome:
    """The outcome of an Endpoint with what is to be said of replicas that are moved: as condition, and by that as
    event. ``trouble`` is why none comes for them, in one word."""
    status = outcome.status
    if not isinstance(status, EndpointStatus):
        return outcome
    before = status.condition(MOVING)
    if not moved and (before is None or before.status != "True"):
        return outcome
    numbers = ", ".join(str(claim.spec.workload.replica) for claim in moved)
    message = f"replica {numbers} goes to another host, so that what is free lies together: another answers first"
    conditions = set_condition(
        status.conditions,
        MOVING,
        bool(moved),
        reason=(trouble or CONSOLIDATION) if moved else "Placed",
        message=message if moved else "",
        now=rfc3339(now),
    )
    return replace(outcome, status=status.model_copy(update={"conditions": conditions}))
