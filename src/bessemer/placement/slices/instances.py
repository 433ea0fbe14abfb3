"""`Instances`: what one profile finds on the devices of some hosts, each state judged once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bessemer.core.slices import Partitioning, room
from bessemer.placement.slices.cuts import Cuts
from bessemer.placement.slices.geometry import best_start
from bessemer.placement.vectors import NONE, WHOLE, Bools, Floats, Ints, Smalls

UNCUT = 1e6
"""What it costs to cut a device that is whole: more than any ways that can be lost on one that is not."""


@dataclass(frozen=True, slots=True)
class Instances:
    """[hosts, devices] each. ``offered``: the device can have one at all; ``fits``: it can now; ``room``: as much is
    free, wherever it lies; ``cost``: the ways that are lost, each profile counting the same, and `UNCUT` where it is
    whole; infinite where it cannot. So it is the same for equal states, and may be kept by them."""

    cuts: Cuts
    name: str
    drained: bool
    offered: Bools
    fits: Bools
    room: Bools
    cost: Floats

    @classmethod
    def of(cls, cuts: Cuts, numbers: Smalls, *, milli: Ints, name: str, drained: bool = False) -> Instances:
        """``numbers`` and ``milli`` [hosts, devices]: states in ``cuts``, free thousandths. With ``drained`` as if
        nothing of any were in use."""
        # One more of each for what cannot be cut: `NONE` is the last.
        offered = np.zeros(len(cuts) + 1, dtype=np.bool_)
        spacious, begun = offered.copy(), offered.copy()
        lost = np.full(len(cuts) + 1, np.inf)
        for number in np.unique(numbers[numbers != NONE]):
            table, used = cuts.table(int(number)), 0 if drained else cuts.used(int(number))
            profile = table.find(name)
            if profile is None:
                continue
            offered[number], begun[number] = True, used != 0
            spacious[number] = room(table, used, profile=profile)
            spot = best_start(table, used, name=name)
            if spot is not None:
                lost[number] = spot.lost + (0.0 if used else UNCUT)
        # Whole, and nobody's; or cut, and nothing of it but instances.
        sole = milli == np.where(begun[numbers], 0, WHOLE)
        cost = np.where(sole, lost[numbers], np.inf)
        return cls(cuts, name, drained, offered[numbers], np.isfinite(cost), sole & spacious[numbers], cost)

    def spot(self, number: int) -> tuple[Partitioning, int]:
        """The table of a device in that state, and the start that loses least of what is asked for. Such a device
        must fit."""
        table = self.cuts.table(number)
        used = 0 if self.drained else self.cuts.used(number)
        spot = best_start(table, used, name=self.name, weights=self.cuts.weights())
        if spot is None:
            raise AssertionError("a device that fits has a start")
        return table, spot.start


def smaller(cuts: Cuts, name: str) -> Sequence[str]:
    """Profiles of the fleet that take less than that one, the largest first; none for no profile."""
    names = cuts.names()
    return names[names.index(name) + 1 :] if name in names else ()
