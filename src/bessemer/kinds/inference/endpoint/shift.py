"""Which replicas of an Endpoint stay, which go, and which are to come: also where one is moved, and another is to
answer before it goes.

A replica counts whatever its number is: what comes for one that is moved has a number of its own, and stays.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace

from bessemer.core.clock import rfc3339
from bessemer.core.notices import CONSOLIDATION, Notice
from bessemer.core.ports import CONTROLLER
from bessemer.core.resource import Outcome, set_condition
from bessemer.kinds.context import Context
from bessemer.kinds.fleet.claim import Claim
from bessemer.kinds.inference.endpoint.spec import EndpointStatus
from bessemer.kinds.turns import notice_of

RELIEF_SECONDS = 30
"""For so long a replica goes on with what it has once another answers in its place."""

MOVED = "Another replica answers on another host, so that what is free lies together"

MOVING = "Moving"
"""Condition of an Endpoint of which a replica is to be on another host."""


@dataclass(frozen=True, slots=True)
class Shift:
    """``staying`` are the replicas that are to be; ``moved`` stay beside them until others answer in their place, and
    of those ``relieved`` have others that do."""

    staying: Sequence[Claim] = ()
    moved: Sequence[Claim] = ()
    relieved: Sequence[Claim] = ()


def shift(standing: Sequence[Claim], *, wanted: int, moved: Set[str], silent: Set[str] = frozenset()) -> Shift:
    """Pure. ``standing`` are the claims that nothing else ends, ``moved`` uids of those that are to be elsewhere,
    ``silent`` of those whose hosts are not heard of: what they say of themselves is of before."""

    def answers(claim: Claim) -> bool:
        return claim.status.phase == "Running" and claim.uid not in silent

    ordered = sorted(standing, key=lambda claim: claim.spec.workload.replica)
    staying = [claim for claim in ordered if claim.uid not in moved]
    if len(staying) > wanted:
        # Where a move was given up both are there, and the number says nothing of which one answers.
        staying.sort(key=lambda claim: not answers(claim))
    leaving = [claim for claim in ordered if claim.uid in moved]
    answering = sum(map(answers, staying[:wanted]))
    # As many of those that are moved stay as do not answer elsewhere yet.
    stay = max(0, wanted - answering)
    return Shift(staying[:wanted], leaving[:stay], leaving[stay:])


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
