"""`decide`: a place, or every reason against and the cheapest change that would help."""

from __future__ import annotations

from dataclasses import replace

from bessemer.core.values import Decision, Refusal, Request
from bessemer.placement.cheapest import cheapest
from bessemer.placement.choose import place
from bessemer.placement.filters import sift
from bessemer.placement.fleet import FleetArrays
from bessemer.placement.sight import Sight


def decide(fleet: FleetArrays, request: Request) -> Decision | Refusal:
    """Where ``request`` goes now. The decision holds only as long as nobody else takes the same."""
    sight = Sight.of(fleet, request)
    placed = place(sight)
    if placed is not None:
        reasons = sift(sight)
        fitting = int(fleet.present[: sight.size].sum()) - sum(reason.hosts for reason in reasons)
        return replace(placed, fitting=fitting, reasons=reasons)
    change = cheapest(sight)
    return Refusal(reasons=sift(sight), cheapest=change.text if change is not None else "")
