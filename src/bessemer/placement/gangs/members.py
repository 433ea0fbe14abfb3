"""The decisions of a gang's members, host by host.

Hosts that are alike in all that a decision within a host looks at are decided once: of a large gang most are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bessemer.core.values import Allocation, Decision, Reason
from bessemer.placement.arrays import Arrays, View
from bessemer.placement.choose import place_at
from bessemer.placement.gangs.room import understood
from bessemer.placement.sight import Sight
from bessemer.placement.vectors import Ints

_ELSEWHERE = frozenset(
    {"present", "schedulable", "reachable", "virtual", "isolated", "fake", "taints", "wall", "leaf", "spine", "kind"}
)
"""Arrays that tell who may land on a host, and nothing of what is taken of it."""


@dataclass(frozen=True, slots=True)
class Told:
    """What every member's decision says of the others."""

    fitting: int
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class _Cut:
    """What one member takes of a host, by columns of its devices."""

    columns: tuple[int, ...]
    allocations: tuple[Allocation, ...]


def settle(sight: Sight, rows: Ints, *, counts: Ints, told: Told) -> tuple[Decision, ...]:
    """Decisions for ``counts`` members on each of ``rows``, in their order."""
    if not understood(sight.request):
        return tuple(_plainly(sight, int(row), told=told) for row in rows)
    fleet = sight.fleet
    known: dict[object, Sequence[_Cut]] = {}
    decisions: list[Decision] = []
    for row, count, state in zip(rows.tolist(), counts.tolist(), _states(fleet, rows), strict=True):
        key = (state, count, *fleet.node_ids(row))
        cuts = known.get(key)
        if cuts is None:
            cuts = known[key] = _cut(sight, row, count=count)
        ids = [device.id for device in fleet.devices(row)]
        name, fake = fleet.names[row], bool(fleet.fake[row])
        decisions += [
            Decision(
                host=name,
                devices=tuple([ids[column] for column in cut.columns]),
                allocations=cut.allocations,
                device_milli=sight.request.device_milli,
                fake=fake,
                fitting=told.fitting,
                reasons=told.reasons,
            )
            for cut in cuts
        ]
    return tuple(decisions)


def _plainly(sight: Sight, row: int, *, told: Told) -> Decision:
    seen = Sight.of(View(sight.fleet, np.array([row])), sight.request)
    return replace(place_at(seen, 0, score={}), fitting=told.fitting, reasons=told.reasons)


def _states(fleet: Arrays, rows: Ints) -> list[bytes]:
    """[rows]: equal for hosts that are alike."""
    parts = [
        value[rows].reshape(len(rows), -1).astype(np.int64)
        for name, value in sorted(vars(fleet).items())
        if isinstance(value, np.ndarray) and name not in _ELSEWHERE
    ]
    return [state.tobytes() for state in np.concatenate(parts, axis=1)]


def _cut(sight: Sight, row: int, *, count: int) -> list[_Cut]:
    """What so many members take of a host, each of what those before it left."""
    view = View(sight.fleet, np.array([row]))
    columns = {device.id: column for column, device in enumerate(view.devices(0))}
    nodes = {node: column for column, node in enumerate(view.node_ids(0))}
    seen = Sight.of(view, sight.request)
    left = replace(
        seen,
        cores_free=seen.cores_free.copy(),
        memory_free=seen.memory_free.copy(),
        device_milli=seen.device_milli.copy(),
    )
    cuts: list[_Cut] = []
    for _ in range(count):
        left = replace(left)
        taken = place_at(left, 0, score={})
        cuts.append(_Cut(tuple(columns[device] for device in taken.devices), taken.allocations))
        for part in taken.allocations:
            left.cores_free[0, nodes[part.numa_node]] -= part.milli_cores
            left.memory_free[0, nodes[part.numa_node]] -= part.memory_bytes
        for device in taken.devices:
            left.device_milli[0, columns[device]] -= taken.device_milli
    return cuts
