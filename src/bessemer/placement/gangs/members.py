"""The decisions of a gang's members, host by host: those that single requests would get there, one after the other.

Hosts are mostly alike, and what is decided within one holds for the others. Of hosts that get one member each, and
differ in nothing but how many cores and how much memory is free, the devices are the same; cores and memory beside them
are then dealt by the same rule as within one host.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from bessemer.core.asking import Allocation, Decision, Reason, Request
from bessemer.placement.arrays import Arrays, View
from bessemer.placement.beside import BESIDE
from bessemer.placement.choose import place_at
from bessemer.placement.gangs.room import understood
from bessemer.placement.sight import Sight
from bessemer.placement.vectors import Ints

_ELSEWHERE = frozenset(
    {"present", "schedulable", "reachable", "virtual", "isolated", "fake", "taints", "wall", "leaf", "spine", "kind"}
)
"""Arrays that tell who may land on a host, and nothing of what is taken of it."""

_BULK = frozenset({"cores", "memory", "cores_free", "memory_free"})


@dataclass(frozen=True, slots=True)
class Told:
    """What every member's decision says of the others."""

    fitting: int
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class _Cut:
    """What one member takes of a host, by columns of its devices, the NUMA nodes of those, and all else that a decision
    says."""

    columns: tuple[int, ...]
    near: tuple[int, ...]
    allocations: tuple[Allocation, ...]
    more: Mapping[str, Any]


def settle(sight: Sight, rows: Ints, *, counts: Ints, told: Told) -> tuple[Decision, ...]:
    """Decisions for ``counts`` members on each of ``rows``, in their order."""
    fleet, known = sight.fleet, dict[object, Sequence[_Cut]]()
    if not understood(sight.request):
        return tuple(_plainly(sight, int(row), told=told) for row in rows)
    # On one node all depends on all; with several members the later ones lie beside what the first ones left; and what
    # is held beyond what there is, is for those to judge who decide on one host.
    least = min(int(fleet.cores_free[rows].min(initial=0)), int(fleet.memory_free[rows].min(initial=0)))
    apart = sight.request.numa != "required" and int(counts.max(initial=0)) == 1 and least >= 0
    states = _states(fleet, rows, without=_BULK if apart else frozenset())
    free = list(
        zip(map(tuple, fleet.cores_free[rows].tolist()), map(tuple, fleet.memory_free[rows].tolist()), strict=True)
    )
    dealt: dict[object, tuple[Allocation, ...]] = {}
    decisions: list[Decision] = []
    for at, (row, count) in enumerate(zip(rows.tolist(), counts.tolist(), strict=True)):
        nodes = fleet.node_ids(row)
        key = (states[at], count, *nodes)
        cuts = known.get(key)
        if cuts is None:
            cuts = known[key] = _cut(sight, row, count=count, told=told)
        devices = fleet.devices(row)
        name, fake = fleet.names[row], bool(fleet.fake[row])
        for cut in cuts:
            beside = dealt.get((key, free[at])) if apart else cut.allocations
            if beside is None:
                beside = dealt[key, free[at]] = _beside(sight.request, nodes, free=free[at], near=cut.near)
            tree = tuple([devices[column] for column in cut.columns])
            ids = tuple([device.id for device in tree])
            decisions.append(Decision(host=name, devices=ids, allocations=beside, fake=fake, tree=tree, **cut.more))
    return tuple(decisions)


def _plainly(sight: Sight, row: int, *, told: Told) -> Decision:
    seen = Sight.of(View(sight.fleet, np.array([row])), sight.request)
    return replace(place_at(seen, 0, score={}), fitting=told.fitting, reasons=told.reasons)


def _states(fleet: Arrays, rows: Ints, *, without: frozenset[str]) -> list[bytes]:
    """[rows]: equal for hosts that are alike."""
    parts = [
        value[rows].reshape(len(rows), -1).astype(np.int64)
        for name, value in sorted(vars(fleet).items())
        if isinstance(value, np.ndarray) and name not in _ELSEWHERE | BESIDE | without
    ]
    return [state.tobytes() for state in np.concatenate(parts, axis=1)]


def _cut(sight: Sight, row: int, *, count: int, told: Told) -> list[_Cut]:
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
        more = {field.name: getattr(taken, field.name) for field in fields(Decision) if field.name not in _OWN}
        where = tuple(columns[device] for device in taken.devices)
        near = tuple(int(view.device_node[0, column]) for column in where)
        told_more = {**more, "fitting": told.fitting, "reasons": told.reasons}
        cuts.append(_Cut(where, near, taken.allocations, told_more))
        for part in taken.allocations:
            left.cores_free[0, nodes[part.numa_node]] -= part.milli_cores
            left.memory_free[0, nodes[part.numa_node]] -= part.memory_bytes
        for device in taken.devices:
            left.device_milli[0, columns[device]] -= taken.device_milli
    return cuts


_OWN = frozenset({"host", "devices", "allocations", "fake", "tree"})
"""What a decision says of its host alone."""


def _beside(
    ask: Request, nodes: Sequence[int], *, free: tuple[Sequence[int], Sequence[int]], near: Sequence[int]
) -> tuple[Allocation, ...]:
    """Cores and memory as `place_at` deals them where they need not lie on one node: first on one that has all, a
    device's own before others, on the fullest of those; else on the emptiest."""
    cores, memory = free
    order = list(range(len(nodes)))
    if ask.numa == "preferred":
        whole = [cores[n] >= ask.milli_cores and memory[n] >= ask.memory_bytes for n in order]
        order.sort(key=lambda n: (not whole[n], -near.count(n), cores[n] if whole[n] else -cores[n], n))
    want_cores, want_memory = ask.milli_cores, ask.memory_bytes
    taken: list[Allocation] = []
    for n in order:
        some, bytes_ = min(want_cores, max(0, cores[n])), min(want_memory, max(0, memory[n]))
        if some or bytes_:
            taken.append(Allocation(numa_node=nodes[n], milli_cores=some, memory_bytes=bytes_))
        want_cores, want_memory = want_cores - some, want_memory - bytes_
    return tuple(taken)
