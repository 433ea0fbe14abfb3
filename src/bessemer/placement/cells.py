"""What of hosts is free by cell, and which hosts a request can lie on: each way of being free is looked at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bessemer.core.asking import Request
from bessemer.placement.arrays import Arrays
from bessemer.placement.beside import GPUS, OTHERS, Cell, Layouts, Topology
from bessemer.placement.layout import Room, layout
from bessemer.placement.vectors import Bools, Ints, Smalls

KEPT_MAX = 4096
"""Ways of being free that are kept of each sort of request, and sorts of requests."""


def arranged(
    fleet: Arrays, request: Request, *, usable: Bools, companions: Sequence[Bools], room: Bools | None
) -> Bools:
    """[hosts]: whether the request can lie there. ``usable`` [hosts, devices] and each of ``companions`` [hosts,
    others] are what would do; ``room`` [hosts, nodes] are nodes with the cores and memory, where all must be on one."""
    fits: Bools = usable.sum(axis=1) >= request.device_count
    for one, free in zip(request.companions, companions, strict=True):
        fits &= free.sum(axis=1) >= one.count
    if room is not None:
        fits &= room.any(axis=1)
    rows: Ints = np.flatnonzero(fits)
    if not len(rows):
        return fits
    parts = [fleet.topology[rows, None].astype(np.int64)]
    parts.append(_counts(usable[rows], fleet.device_cell[rows], most=request.device_count))
    for one, free in zip(request.companions, companions, strict=True):
        parts.append(_counts(free[rows], fleet.other_cell[rows], most=one.count))
    parts.append(np.zeros((len(rows), 0), dtype=np.int64) if room is None else room[rows].astype(np.int64))
    table = np.ascontiguousarray(np.concatenate(parts, axis=1).astype(np.int32))
    widths = [part.shape[1] for part in parts]
    verdicts = _known(fleet.layouts, request, numa=room is not None, widths=widths)
    # As bytes they are told apart at once; `np.unique` would sort them by every column.
    keys: list[bytes] = [bytes(key) for key in table.view(np.dtype((np.void, table.strides[0]))).ravel().tolist()]
    topologies = fleet.topologies.all
    for row, key, number in zip(rows.tolist(), keys, table[:, 0].tolist(), strict=True):
        topology, known = topologies[number], verdicts.get(key)
        # A number is given anew where no host has its topology any more.
        if known is None or (known[0] is not topology and known[0] != topology):
            values = np.frombuffer(key, dtype=np.int32)
            one_room = _room(topology, values, widths=widths)
            known = verdicts[key] = (topology, layout(request, one_room, numa=room is not None) is not None)
        fits[row] = known[1]
    return fits


def _known(
    layouts: Layouts, request: Request, *, numa: bool, widths: Sequence[int]
) -> dict[bytes, tuple[Topology, bool]]:
    """What was found of hosts that are free in the same way, for requests that want the same."""
    wants = (request.device_count, request.same_switch, request.same_nvlink, request.companions, numa, *widths)
    known = layouts.setdefault(wants, {})
    if len(known) > KEPT_MAX:
        known.clear()
    if len(layouts) > KEPT_MAX:
        layouts.clear()
        layouts[wants] = known
    return known


def room_at(fleet: Arrays, row: int, *, usable: Bools, companions: Sequence[Bools], nodes: Sequence[int]) -> Room:
    """What one host has, uncut: ``usable`` [devices] and each of ``companions`` [others]."""
    devices, others = fleet.topologies.all[int(fleet.topology[row])]
    return Room(
        _by_cell(devices, fleet.device_cell[row][usable]),
        [_by_cell(others, fleet.other_cell[row][free]) for free in companions],
        nodes,
    )


def _counts(mask: Bools, cells: Smalls, *, most: int) -> Ints:
    """[hosts, cells]: how many lie there, and no more than matter."""
    width = int(cells.max(initial=-1)) + 1
    rows, columns = np.nonzero(mask)
    flat = np.bincount(rows * width + cells[rows, columns], minlength=len(mask) * width)
    counts: Ints = np.minimum(flat, most).reshape(len(mask), width).astype(np.int64)
    return counts


def _room(topology: Topology, values: Smalls, *, widths: Sequence[int]) -> Room:
    """A row of the table as the host that it stands for."""
    _, devices, *companions, nodes = np.split(values, np.cumsum(widths)[:-1])
    return Room(
        _named(topology[GPUS], devices),
        [_named(topology[OTHERS], counts) for counts in companions],
        frozenset(np.flatnonzero(nodes).tolist()),
    )


def _named(cells: Sequence[Cell], counts: Smalls) -> dict[Cell, int]:
    return {cells[int(number)]: int(counts[number]) for number in np.flatnonzero(counts)}


def _by_cell(cells: Sequence[Cell], numbers: Smalls) -> dict[Cell, int]:
    found, counts = np.unique(numbers, return_counts=True)
    return {cells[int(number)]: int(count) for number, count in zip(found, counts, strict=True)}
