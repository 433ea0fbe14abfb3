"""`set_anew`: a host as it is said to be, and what the arrays said else.

For who suspects the arrays of a slip; in a fleet that is kept well nothing is found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bessemer.placement.facts import Hold, HostFacts
from bessemer.placement.fleet import FleetArrays
from bessemer.placement.vectors import NONE

_NUMBERED = ("device_model", "other_name", "wall", "taints", "kind", "leaf", "spine", "offer", "device_cut")
"""Arrays of numbers that mean something in this fleet alone, and may be others each time."""


def set_anew(fleet: FleetArrays, facts: HostFacts) -> Sequence[str]:
    """Set a host by the facts by which it was set last, and name the arrays that said else; ``present`` where it was
    not there at all."""
    row = fleet.row(facts.name)
    if row is None:
        fleet.set_host(facts)
        return ("present",)
    wrong = [name for name in _NUMBERED if _renumbered(fleet, row, name=name, facts=facts)]
    before = _row(fleet, row)
    fleet.set_host(facts)
    after = _row(fleet, row)
    return (*wrong, *(name for name in after if name not in before or not np.array_equal(before[name], after[name])))


def held_at(fleet: FleetArrays, host: str) -> Mapping[str, Hold]:
    """What is counted as held there, by the uid under which it is."""
    return {uid: fleet._holds[uid] for uid in fleet._holds_by_host.get(host, ())}


def _row(fleet: FleetArrays, row: int) -> Mapping[str, NDArray[Any]]:
    arrays = {name: value for name, value in vars(fleet).items() if isinstance(value, np.ndarray)}
    found = {name: value[row].copy() for name, value in arrays.items() if name not in (*_NUMBERED, "device_cut")}
    # Its numbers change with what is held; the fleet knows what each device's is.
    said, count = fleet.device_cut[row], len(fleet.devices(row))
    right = [fleet.cuts.at(row, column) for column in range(count)]
    found["device_cut"] = np.array(said != np.array(right + [NONE] * (len(said) - count)))
    return found


def _renumbered(fleet: FleetArrays, row: int, *, name: str, facts: HostFacts) -> bool:
    """Let a row's numbers mean what the host is, and say whether they did not. Numbers are counted by their users: what
    a row never took it must not give back."""
    said = getattr(fleet, name)
    meant = np.full(said[row].size, NONE)
    if name == "device_cut":
        # Counted apart from the array, by what is held.
        right = [fleet.cuts.at(row, column) for column in range(len(fleet.devices(row)))]
    else:
        alone = FleetArrays()
        alone.set_host(facts)
        numbers = np.atleast_1d(getattr(alone, name)[alone.row(facts.name)])
        right = [_number(fleet, alone, name=name, number=int(number)) for number in numbers]
    meant[: len(right)] = right
    wrong = not np.array_equal(np.atleast_1d(said[row]), meant)
    if wrong:
        said[row] = meant if said.ndim > 1 else meant[0]
    return wrong


def _number(fleet: FleetArrays, alone: FleetArrays, *, name: str, number: int) -> int:
    if number == NONE:
        return NONE
    match name:
        case "device_model":
            return fleet.models.find(alone.models.all[number])
        case "other_name":
            return fleet.other_names.find(alone.other_names.all[number])
        case "wall":
            return fleet.walls.find(alone.walls.all[number])
        case "leaf" | "spine":
            return fleet.switches.find(alone.switches.all[number])
        case "offer":
            return fleet.offers.find(alone.offers.all[number])
        case "kind":
            return fleet.kinds.find(alone.kinds.all[number])
        case _:
            return fleet._taint_sets.find(alone.taint_sets[number])
