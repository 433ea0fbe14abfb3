"""`set_anew`: a host as it is said to be, and what the arrays said else.

For who suspects the arrays of a slip; in a fleet that is kept well nothing is found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bessemer.placement.arrays import ARRAYS
from bessemer.placement.facts import HostFacts
from bessemer.placement.fleet import FleetArrays, meaning
from bessemer.placement.vectors import NONE

_NUMBERED = tuple(name for name, array in ARRAYS.items() if array.column.numbers)
"""Arrays of numbers that mean something in this fleet alone, and may be others each time."""


def set_anew(fleet: FleetArrays, facts: HostFacts) -> Sequence[str]:
    """Set a host by the facts by which it was set last, and name the arrays that said else; ``present`` where it was
    not there at all."""
    row = fleet.row(facts.name)
    if row is None:
        fleet.set_host(facts)
        return ("present",)
    alone = FleetArrays()
    alone.set_host(facts)
    wrong = [name for name in _NUMBERED if _renumbered(fleet, row, name=name, alone=alone)]
    before = _row(fleet, row)
    fleet.set_host(facts)
    after = _row(fleet, row)
    return (*wrong, *(name for name in after if name not in before or not np.array_equal(before[name], after[name])))


def _row(fleet: FleetArrays, row: int) -> Mapping[str, NDArray[Any]]:
    found = {name: getattr(fleet, name)[row].copy() for name in ARRAYS if name not in _NUMBERED}
    # Its numbers change with what is held; the fleet knows what each device's is.
    said, count = fleet.device_cut[row], len(fleet.devices(row))
    right = [fleet.cuts.at(row, column) for column in range(count)]
    found["device_cut"] = np.array(said != np.array(right + [NONE] * (len(said) - count)))
    return found


def _renumbered(fleet: FleetArrays, row: int, *, name: str, alone: FleetArrays) -> bool:
    """Let a row's numbers mean what the host is, which is ``alone`` in arrays of its own, and say whether they did not.
    Numbers are counted by their users: what a row never took it must not give back."""
    said = getattr(fleet, name)
    meant = np.full(said[row].size, NONE)
    if name == "device_cut":
        # Counted apart from the array, by what is held.
        right = [fleet.cuts.at(row, column) for column in range(len(fleet.devices(row)))]
    else:
        found = [meaning(alone, name, value=int(number)) for number in np.atleast_1d(getattr(alone, name)[0])]
        numbers = getattr(fleet, ARRAYS[name].column.numbers)
        right = [NONE if one is None else numbers.find(one) for one in found]
    meant[: len(right)] = right
    wrong = not np.array_equal(np.atleast_1d(said[row]), meant)
    if wrong:
        said[row] = meant if said.ndim > 1 else meant[0]
    return wrong
