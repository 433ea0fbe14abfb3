"""What of hosts is free by cell, and which hosts a request can lie on: each way of being free is looked at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bessemer.core.asking import Request
from bessemer.placement.arrays import Arrays
from bessemer.placement.beside import GPUS, OTHERS, Cell, Topology
from bessemer.placement.layout import Room, layout
from bessemer.placement.vectors import Bools, Ints, Smalls


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
    verdicts: dict[bytes, bool] = {}
    # As bytes they are told apart at once; `np.unique` would sort them by every column.
    keys: list[bytes] = [bytes(key) for key in table.view(np.dtype((np.void, table.strides[0]))).ravel().tolist()]
    for row, key, values in zip(rows, keys, table, strict=True):
        verdict = verdicts.get(key)
        if verdict is None:
            one_room = _room(fleet.topologies.all[int(values[0])], values, widths=widths)
            verdict = verdicts[key] = layout(request, one_room, numa=room is not None) is not None
        fits[row] = verdict
    return fits


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
