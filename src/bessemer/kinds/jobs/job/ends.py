"""How a member ended, as its host's agent says it: read as the word of a stranger. Pure.

A host may be anybody's in the end. What it says decides which failure is told and whether the gang is taken anew, so
only words that a host can have a reason to say count, each as far as it goes together with the rest; anything else is
a member that was lost, which is made good a bounded number of times. It never is an end that nobody reached.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import ConfigDict, Field, ValidationError

from bessemer.core.resource import ApiModel
from bessemer.kinds.fleet.claim import Claim

Reason = Literal["", "MemberFailed", "OutOfMemory", "MemberLost", "DeadlineExceeded"]
MESSAGE_MAX = 512

CLOCK_SECONDS = 60.0
"""By so much a host's clock may be ahead of ours: a deadline that is further away has not passed, whoever says so."""


class MemberEnd(ApiModel):
    """``reason`` "" is an end with status 0. ``at`` is the host's clock, in epoch seconds."""

    model_config = ConfigDict(extra="ignore", strict=True)

    reason: Reason
    code: int | None = Field(None, ge=0, le=255)
    at: float = Field(allow_inf_nan=False)


def end_of(claim: Claim, *, now: float = math.inf) -> MemberEnd | None:
    """How the claim's member ended, as far as that may be so ``now``; None for one that has not."""
    said = claim.status.detail.get("end")
    if said is None:
        return None
    try:
        end = MemberEnd.model_validate(said)
    except ValidationError:
        return _lost(math.inf)
    wanted = claim.spec.intent
    ends = float(wanted.get("ends") or math.inf)
    well = end.code == 0 and claim.status.phase == "Stopped"
    # Whose clock is ahead says so by that clock: none that is honest says it of a time before, or far ahead of ours.
    untrue = {
        "": not well,
        "MemberFailed": not end.code,
        "DeadlineExceeded": ends > min(end.at, now + CLOCK_SECONDS),
    }.get(end.reason, False)
    if untrue:
        return _lost(end.at)
    # No member fails before its gang was started: else whoever says so would always be the first.
    return end.model_copy(update={"at": max(end.at, float(wanted.get("started") or 0))})


def message_of(claim: Claim) -> str:
    """What the host says of it, in words that a person can be shown."""
    printable = "".join(c for c in claim.status.message[: 2 * MESSAGE_MAX] if c.isprintable())
    return printable[:MESSAGE_MAX]


def _lost(at: float) -> MemberEnd:
    return MemberEnd.model_construct(reason="MemberLost", code=None, at=at)
