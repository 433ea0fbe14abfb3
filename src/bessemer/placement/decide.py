"""`decide`: a place, or every reason against and the cheapest change that would help."""

from __future__ import annotations

from bessemer.core.values import Decision, Refusal, Request
from bessemer.placement.cheapest import cheapest
from bessemer.placement.choose import best_row, parts
from bessemer.placement.filters import fitting, sift
from bessemer.placement.fleet import FleetArrays
from bessemer.placement.sight import Sight


def decide(fleet: FleetArrays, request: Request) -> Decision | Refusal:
    """Where ``request`` goes now. The decision holds only as long as nobody else takes the same."""
    sight = Sight.of(fleet)
    placed = place(sight, request)
    if placed is not None:
        return placed
    change = cheapest(sight, request, place)
    return Refusal(reasons=sift(sight, request), cheapest=change.text if change is not None else "")


def place(sight: Sight, request: Request) -> Decision | None:
    """The best place, or None."""
    fits = fitting(sight, request)
    if not fits.any():
        return None
    row, score = best_row(sight, request, fits)
    return parts(sight, request, row, score)
