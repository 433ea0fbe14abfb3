"""What is seen of the fleet by who asks where something would go: the hosts beside the chosen one, what is free of a
host, and how much there is under each leaf. It changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from bessemer.core.asking import Request
from bessemer.core.hosts import Device
from bessemer.placement.choose import instance_cost
from bessemer.placement.filters import FACTS, fitting
from bessemer.placement.fleet import FleetArrays
from bessemer.placement.policies import Policy
from bessemer.placement.policies.parts import Score, explained, values
from bessemer.placement.shape import Shape
from bessemer.placement.sight import Sight
from bessemer.placement.vectors import NONE, WHOLE, Bools


def models_at(fleet: FleetArrays, host: str) -> Mapping[str, str]:
    """The model of each device of a host, by id."""
    row = fleet.row(host)
    return {device.id: device.model for device in fleet.devices(row)} if row is not None else {}


# --- other hosts ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Scored:
    """A host with room, and the figures by which it is compared; small is good in each. ``parts`` are thousandths of a
    device."""

    host: str
    score: Mapping[str, float]
    parts: Mapping[str, float] = field(default_factory=dict)


def ranked(fleet: FleetArrays, request: Request, *, policy: Policy, first: str, most: int) -> Sequence[Scored]:
    """``first``, the host that was chosen, and the next best ``most``, as things stand. Where that is none, no other
    host is looked at."""
    row, shape = fleet.row(first), Shape.of(request)
    if row is None:
        return ()
    if not most:
        one = np.array([row])
        alone = Score(0.0, {}) if shape.device_profile else explained(policy, shape, fleet=fleet, rows=one)[0]
        return [Scored(first, {policy.name: alone.value}, alone.parts)]
    sight = Sight.of(fleet, request)
    fits = fitting(sight)
    if not fits[row]:
        return ()
    rows = np.flatnonzero(fits)
    apart = ~sight.close[rows] if request.numa == "preferred" else np.zeros(len(rows), dtype=np.bool_)
    # What an instance costs is what it leaves of its device, as for the board: no policy knows that.
    cut = instance_cost(sight) if shape.device_profile else None
    costs = values(policy, shape, fleet=fleet, rows=rows) if cut is None else cut[rows]
    order = np.lexsort((rows, costs, apart))
    best = np.array([row, *(at for at in rows[order[: most + 1]].tolist() if at != row)][: most + 1], dtype=np.int64)
    if cut is None:
        scores = explained(policy, shape, fleet=fleet, rows=best)
    else:
        scores = [Score(float(cut[at]), {}) for at in best]
    return [
        Scored(fleet.names[at], _apart(sight, int(at)) | {policy.name: score.value}, score.parts)
        for at, score in zip(best, scores, strict=True)
    ]


def _apart(sight: Sight, row: int) -> dict[str, float]:
    return {"spansNumaNodes": float(not sight.close[row])} if sight.request.numa == "preferred" else {}


@dataclass(frozen=True, slots=True)
class Likely:
    """What a replica would have of each of its devices, as far as that can be told before it is placed."""

    model: str
    milli: int
    fake: bool


def likely(fleet: FleetArrays, request: Request) -> Likely:
    """Of the model of which most devices are open to it, taken or not; "" where none are."""
    sight = Sight.of(fleet, request)
    there = sight.wanted & fitting(sight, FACTS)[:, None]
    if request.device_bytes:
        there &= sight.each <= WHOLE
    numbers, counts = np.unique(fleet.device_model[: fleet.size][there], return_counts=True)
    if not request.device_count or not len(numbers):
        only = min(request.device_models) if len(request.device_models) == 1 else ""
        return Likely(only, WHOLE if request.device_bytes else request.device_milli, fake=False)
    names = [fleet.models.all[number] for number in numbers.tolist()]
    at = min(range(len(names)), key=lambda n: (-counts[n], names[n]))
    there &= fleet.device_model[: fleet.size] == numbers[at]
    return Likely(names[at], _milli(sight, there), fake=bool(fleet.fake[: fleet.size][there.any(axis=1)].all()))


def _milli(sight: Sight, there: Bools) -> int:
    """The most thousandths of one of those devices that it might be."""
    name = sight.request.device_profile
    if not name:
        return int(sight.each[there].max(initial=1))
    numbers = np.unique(sight.fleet.device_cut[: sight.size][there]).tolist()
    return max(sight.fleet.cuts.table(number).milli_of(name) for number in numbers)


# --- a host, and what is above it -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NodeRoom:
    """A NUMA node: thousandths of cores that are sold, bytes, and what is free of both, never below zero."""

    id: int
    milli_cores: int
    milli_cores_free: int
    memory_bytes: int
    memory_free_bytes: int


@dataclass(frozen=True, slots=True)
class HostRoom:
    """A host as it stands: its GPUs with the free thousandths of each, 0 of one that is unsound."""

    name: str
    fake: bool
    leaf: str
    spine: str
    nodes: Sequence[NodeRoom]
    devices: Sequence[tuple[Device, int]]


def host_room(fleet: FleetArrays, name: str) -> HostRoom | None:
    """What is free of a host, or None where it is not known."""
    row = fleet.row(name)
    if row is None:
        return None
    nodes = [
        NodeRoom(
            number,
            int(fleet.cores[row, column]),
            max(0, int(fleet.cores_free[row, column])),
            int(fleet.memory[row, column]),
            max(0, int(fleet.memory_free[row, column])),
        )
        for column, number in enumerate(fleet.node_ids(row))
    ]
    free = np.where(fleet.device_sound[row], np.clip(fleet.device_milli[row], 0, WHOLE), 0)
    devices = [(device, int(free[column])) for column, device in enumerate(fleet.devices(row))]
    return HostRoom(
        name, bool(fleet.fake[row]), _above(fleet, fleet.leaf[row]), _above(fleet, fleet.spine[row]), nodes, devices
    )


def switches_above(fleet: FleetArrays, name: str) -> tuple[str, str]:
    """Leaf and spine of a host, "" where nobody says."""
    row = fleet.row(name)
    return ("", "") if row is None else (_above(fleet, fleet.leaf[row]), _above(fleet, fleet.spine[row]))


def _above(fleet: FleetArrays, number: int) -> str:
    return "" if number == NONE else fleet.switches.all[number]


@dataclass(frozen=True, slots=True)
class LeafRoom:
    """The hosts under one leaf switch that are open to who asks: how many there are and have room, their sound devices
    of the models that would do, and those of which nobody has anything."""

    leaf: str
    hosts: int
    fitting: int
    devices: int
    free: int


def leaf_rooms(fleet: FleetArrays, request: Request) -> Sequence[LeafRoom]:
    """By leaf, "" for hosts of which nobody says it. A host to which the request may not come at all is in none."""
    sight = Sight.of(fleet, request)
    allowed, fits = fitting(sight, FACTS), fitting(sight)
    rows = np.flatnonzero(allowed)
    # In one go: each host may be under a leaf of its own.
    leaves, above = np.unique(fleet.leaf[rows], return_inverse=True)
    whole = sight.wanted & (sight.device_milli >= WHOLE)
    each = (np.ones(len(rows)), fits[rows], sight.wanted[rows].sum(axis=1), whole[rows].sum(axis=1))
    counts = [np.bincount(above, weights=one, minlength=len(leaves)).astype(np.int64).tolist() for one in each]
    found = [LeafRoom(_above(fleet, number), *of) for number, *of in zip(leaves.tolist(), *counts, strict=True)]
    return sorted(found, key=lambda room: room.leaf)
