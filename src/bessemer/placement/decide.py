"""`decide`: a place, or every reason against and the cheapest change that would help."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bessemer.core.asking import Decision, Reason, Refusal, Request
from bessemer.placement.arrays import Arrays
from bessemer.placement.cheapest import Propose, cheapest
from bessemer.placement.choose import place
from bessemer.placement.filters import sift
from bessemer.placement.sight import Sight


def decide(fleet: Arrays, request: Request) -> Decision | Refusal:
    """Where ``request`` goes now. The decision holds only as long as nobody else takes the same."""
    sight = Sight.of(fleet, request)
    fits, reasons = sift(sight)
    placed = place(sight, fits)
    if placed is not None:
        return replace(placed, fitting=int(fits.sum()), reasons=reasons)
    return refused(sight, reasons)


def refused(sight: Sight, reasons: tuple[Reason, ...], *, remedies: Sequence[Propose] = ()) -> Refusal:
    """What is said of a request that fits nowhere; ``remedies`` as for `cheapest`."""
    change = cheapest(sight, remedies=remedies)
    return Refusal(reasons=reasons, cheapest=change.text if change is not None else "")
