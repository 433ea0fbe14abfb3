"""Why a gang fits nowhere, counted by set, and what would help."""

from __future__ import annotations

from bessemer.core.values import Gang, Reason, Refusal
from bessemer.placement.gangs.ground import Ground
from bessemer.placement.sight import Sight


def refused(sight: Sight, gang: Gang, ground: Ground, reasons: tuple[Reason, ...]) -> Refusal:
    return Refusal(reasons=reasons)
