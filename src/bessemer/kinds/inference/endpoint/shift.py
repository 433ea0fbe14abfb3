"""Which replicas of an Endpoint stay, which go, and which are to come: also where one is moved, and another is to
answer before it goes.

A replica counts whatever its number is: what comes for one that is moved has a number of its own, and stays.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace

from bessemer.core.clock import rfc3339
from bessemer.core.notices import CONSOLIDATION
from bessemer.core.resource import Outcome, set_condition
from bessemer.kinds.fleet.claim import Claim
from bessemer.kinds.inference.endpoint.spec import EndpointStatus

MOVING = "Moving"
"""Condition of an Endpoint of which a replica is to be on another host."""


@dataclass(frozen=True, slots=True)
class Shift:
    """``staying`` are the replicas that are to be; ``moved`` stay beside them until others answer in their place, and
    ``going`` are let go now."""

    staying: Sequence[Claim] = ()
    moved: Sequence[Claim] = ()
    going: Sequence[Claim] = ()


def shift(standing: Sequence[Claim], *, wanted: int, moved: Set[str]) -> Shift:
    """Pure. ``standing`` are the claims that nothing else ends, ``moved`` uids of those that are to be elsewhere."""
    ordered = sorted(standing, key=lambda claim: claim.spec.workload.replica)
    staying = [claim for claim in ordered if claim.uid not in moved]
    leaving = [claim for claim in ordered if claim.uid in moved]
    answering = sum(claim.status.phase == "Running" for claim in staying[:wanted])
    # As many of those that are moved stay as do not answer elsewhere yet.
    stay = max(0, wanted - answering)
    return Shift(staying[:wanted], leaving[:stay], [*staying[wanted:], *leaving[stay:]])


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
