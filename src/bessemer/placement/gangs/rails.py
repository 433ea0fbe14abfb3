"""Members on the same rails: which rails, and which devices of each host are on them.

A rail joins the devices of the same place of many hosts. A device is on the rail that its host says, or on the one of
the cards under its PCIe switch. All members have as many devices on each rail, and so each has a host to itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, islice

import numpy as np

from bessemer.core.asking import Gang
from bessemer.placement.cells import room_at
from bessemer.placement.gangs.ground import Ground
from bessemer.placement.layout import layout
from bessemer.placement.sight import Sight
from bessemer.placement.vectors import NONE, Bools, Ints

Rails = tuple[int, ...]
"""In order, one for each device of a member."""

Columns = tuple[int, ...]

_Way = tuple[tuple[int, ...], Columns]
"""On how many models, nodes and switches the devices are, and which they are."""

WAYS_MAX = 4096
"""Of choosing devices that are looked at of one host: all of 8 devices, of more ways may be missed."""

TRIED = 8
"""Rails, those with the most hosts first, among which switches decide."""


_Places = Sequence[tuple[Sequence[int], Columns]]
"""Rows that are alike, and the devices of each."""


@dataclass(frozen=True, slots=True, eq=False)
class OnRails:
    """The hosts with a place for a member on some rails, and which devices of each."""

    rails: Rails
    ground: Ground
    places: _Places

    def columns(self) -> Mapping[int, Columns]:
        """Of each row the devices of a member."""
        return {row: columns for rows, columns in self.places for row in rows}


def wants_rails(gang: Gang) -> bool:
    """Whether there is anything to lie on a rail."""
    return bool(gang.rails and gang.member.device_count)


def own_host(gang: Gang) -> Gang:
    """The gang as it lies on rails: one to a host."""
    return replace(gang, per_host=1)


def on_rails(sight: Sight, gang: Gang, *, fits: Bools) -> Sequence[OnRails]:
    """Of the rails on which the whole gang has places those with the most hosts; none: there are no such."""
    found: list[OnRails] = []
    for rails, places in _ranked(sight, fits):
        if _count(places) < gang.count or len(found) == TRIED:
            break
        ground = _ground(sight, gang, places=places)
        if ground.most(gang) >= gang.count:
            found.append(OnRails(rails, ground, places))
    return found


def most(sight: Sight, gang: Gang, *, fits: Bools) -> int:
    """How many members there is room for, together as the gang says."""
    if gang.rails != "required" or not wants_rails(gang):
        return Ground.of(sight, gang, fits=fits).most(gang)
    best = 0
    for _, places in _ranked(sight, fits):
        if _count(places) <= best:
            break
        best = max(best, _ground(sight, gang, places=places).most(gang))
    return best


def _count(places: _Places) -> int:
    return sum(len(rows) for rows, _ in places)


def _ground(sight: Sight, gang: Gang, *, places: _Places) -> Ground:
    there = np.zeros(sight.size, dtype=np.bool_)
    for rows, _ in places:
        there[rows] = True
    return Ground.of(sight, own_host(gang), fits=there)


def _ranked(sight: Sight, fits: Bools) -> Sequence[tuple[Rails, _Places]]:
    """Every choice of rails on which some host has a place; those with the most hosts first, and of equal ones those
    where devices lie nearest to each other."""
    rows = np.flatnonzero(fits)
    alike: dict[bytes, list[int]] = {}
    for row, state in zip(rows.tolist(), _states(sight, rows), strict=True):
        alike.setdefault(state, []).append(row)
    found: dict[Rails, list[tuple[Sequence[int], Columns]]] = {}
    harm: Counter[Rails] = Counter()
    for some in alike.values():
        for rails, (apart, columns) in _ways(sight, some[0]).items():
            found.setdefault(rails, []).append((some, columns))
            harm[rails] += sum(apart) * len(some)
    return sorted(found.items(), key=lambda one: (-_count(one[1]), harm[one[0]], one[0]))


def _states(sight: Sight, rows: Ints) -> list[bytes]:
    """[rows]: equal for hosts on which the same devices may be taken."""
    fleet = sight.fleet
    arrays: list[np.ndarray] = [sight.able, sight.node_room, fleet.device_rail, fleet.device_node, fleet.device_switch]
    arrays += [fleet.device_nvlink, fleet.device_model, fleet.offer[:, None]]
    if sight.request.companions:
        arrays += [fleet.topology[:, None], fleet.device_cell, fleet.other_cell, *sight.companions]
    table = np.concatenate([array[rows].astype(np.int32) for array in arrays], axis=1)
    return [state.tobytes() for state in table]


def _ways(sight: Sight, row: int) -> Mapping[Rails, _Way]:
    """By rails the devices that lie nearest to each other, of one model where they can."""
    fleet, found = sight.fleet, dict[Rails, _Way]()
    rail, node, switch, model = (
        array[row].tolist() for array in (fleet.device_rail, fleet.device_node, fleet.device_switch, fleet.device_model)
    )
    columns = [column for column in np.flatnonzero(sight.able[row]).tolist() if rail[column] != NONE]
    for chosen in islice(_sets(sight, row, columns=columns), WAYS_MAX):
        if not _may_be(sight, row, chosen=chosen):
            continue
        rails = tuple(sorted(rail[column] for column in chosen))
        harm = tuple(len({of[column] for column in chosen}) for of in (model, node, switch))
        if rails not in found or (harm, chosen) < found[rails]:
            found[rails] = (harm, chosen)
    return found


def _sets(sight: Sight, row: int, *, columns: Sequence[int]) -> Iterator[Columns]:
    """Of these devices as many as a member wants; of who offers NVLink partitions those that are one."""
    if not sight.offering[row]:
        yield from combinations(columns, sight.request.device_count)
        return
    known = set(columns)
    yield from (
        tuple(some)
        for some in sight.partitions.columns[sight.partitions.rows == row].tolist()
        if known.issuperset(some)
    )


def _may_be(sight: Sight, row: int, *, chosen: Columns) -> bool:
    """Whether a member may have these devices."""
    ask, fleet, some = sight.request, sight.fleet, list(chosen)
    if sight.offering[row]:
        ask = replace(ask, same_nvlink=False)
    nodes = np.flatnonzero(sight.node_room[row]).tolist()
    if ask.companions:
        usable = np.zeros(sight.able.shape[1], dtype=np.bool_)
        usable[some] = True
        free = [one[row] for one in sight.companions]
        room = room_at(fleet, row, usable=usable, companions=free, nodes=nodes)
        return layout(ask, room, numa=ask.numa == "required") is not None
    for wanted, near in ((ask.same_switch, fleet.device_switch), (ask.same_nvlink, fleet.device_nvlink)):
        if wanted and len(set(near[row, some].tolist())) > 1:
            return False
    node = set(fleet.device_node[row, some].tolist())
    return ask.numa != "required" or (len(node) == 1 and node <= set(nodes))
