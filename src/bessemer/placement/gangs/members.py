"""The decisions of a gang's members, host by host: those that single requests would get there, one after the other.

Hosts are mostly alike, and what is decided within one holds for the others. Of hosts that get one member each, and
differ in nothing but how many cores and how much memory is free, the devices are the same; cores and memory beside them
are then dealt by the same rule as within one host, for all hosts at once.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence, Set
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from bessemer.core.asking import Allocation, Decision, Reason, Request
from bessemer.placement.arrays import ARRAYS, Arrays
from bessemer.placement.beside import BESIDE
from bessemer.placement.choose import place_at
from bessemer.placement.gangs.alone import Alone
from bessemer.placement.gangs.room import understood
from bessemer.placement.portions import CORE, memory_unit, portions
from bessemer.placement.sight import Sight
from bessemer.placement.vectors import Ints

_TELLING = tuple(name for name, array in ARRAYS.items() if not array.column.open and not array.column.derived)
"""Arrays that tell what is there and what is taken of it, and not who may land there."""

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


def settle(
    sight: Sight, rows: Ints, *, counts: Ints, told: Told, only: Mapping[int, tuple[int, ...]] | None = None
) -> tuple[Decision, ...]:
    """Decisions for ``counts`` members on each of ``rows``, in their order. ``only``: the devices to take of each row,
    by column."""
    fleet, ask, known = sight.fleet, sight.request, dict[Hashable, Sequence[_Cut]]()
    if not understood(ask):
        return tuple(_plainly(sight, row, told=told, only=None if only is None else only[row]) for row in rows.tolist())
    # On one node all depends on all; with several members the later ones lie beside what the first ones left; threads
    # have names; and what is held beyond what there is, is for those to judge who decide on one host.
    plain = ask.cpu_policy == "shared" and not ask.page_bytes
    least = min(int(fleet.cores_free[rows].min(initial=0)), int(fleet.memory_free[rows].min(initial=0)))
    # Of NVLink partitions one beside its cores and memory is taken, where that is preferred.
    beside_cores = ask.numa == "required" or (ask.numa == "preferred" and bool(sight.offering.any()))
    apart = plain and not beside_cores and int(counts.max(initial=0)) == 1 and least >= 0
    states = _states(fleet, rows, without=(BESIDE if plain else frozenset()) | (_BULK if apart else frozenset()))
    numbers = rows.tolist()
    found: list[Sequence[_Cut]] = []
    for state, row, count in zip(states, numbers, counts.tolist(), strict=True):
        some = None if only is None else only[row]
        key = (state, count, some, *fleet.node_ids(row), *(() if plain else _threads(fleet, row)))
        cuts = known.get(key)
        if cuts is None:
            cuts = known[key] = _cut(sight, row, count=count, told=told, only=some)
        found.append(cuts)
    dealt = _dealt(fleet, ask, rows=rows, near=[cuts[0].near for cuts in found]) if apart else None
    decisions: list[Decision] = []
    for at, (row, cuts) in enumerate(zip(numbers, found, strict=True)):
        devices, name, fake = fleet.devices(row), fleet.names[row], bool(fleet.fake[row])
        for cut in cuts:
            tree = tuple([devices[column] for column in cut.columns])
            ids = tuple([device.id for device in tree])
            beside = cut.allocations if dealt is None else dealt[at]
            decisions.append(Decision(host=name, devices=ids, allocations=beside, fake=fake, tree=tree, **cut.more))
    return tuple(decisions)


def _plainly(sight: Sight, row: int, *, told: Told, only: Sequence[int] | None) -> Decision:
    alone = Alone(sight.fleet, row)
    if only is not None:
        alone.keep(only)
    seen = Sight.of(alone, sight.request)
    return replace(place_at(seen, 0, score={}), fitting=told.fitting, reasons=told.reasons)


def _states(fleet: Arrays, rows: Ints, *, without: Set[str]) -> list[bytes]:
    """[rows]: equal for hosts that are alike."""
    parts = [
        getattr(fleet, name)[rows].reshape(len(rows), -1).astype(np.int64) for name in _TELLING if name not in without
    ]
    return [state.tobytes() for state in np.concatenate(parts, axis=1)]


def _threads(fleet: Arrays, row: int) -> tuple[Hashable, ...]:
    """By which names hardware threads go on a host, and which of them are somebody's own."""
    parts = fleet.parts(row)
    return (tuple(parts.cores), frozenset(cpu for cpu, count in parts.own.items() if count > 0))


def _cut(sight: Sight, row: int, *, count: int, told: Told, only: Sequence[int] | None) -> list[_Cut]:
    """What so many members take of a host, each of what those before it left."""
    alone = Alone(sight.fleet, row)
    if only is not None:
        alone.keep(only)
    cuts: list[_Cut] = []
    for _ in range(count):
        taken = place_at(Sight.of(alone, sight.request), 0, score={})
        more = {field.name: getattr(taken, field.name) for field in fields(Decision) if field.name not in _OWN}
        where = tuple(alone.columns[device] for device in taken.devices)
        near = tuple(int(alone.device_node[0, column]) for column in where)
        told_more = {**more, "fitting": told.fitting, "reasons": told.reasons}
        cuts.append(_Cut(where, near, taken.allocations, told_more))
        alone.take(taken)
    return cuts


_OWN = frozenset({"host", "devices", "allocations", "fake", "tree"})
"""What a decision says of its host alone."""


def _dealt(
    fleet: Arrays, ask: Request, *, rows: Ints, near: Sequence[tuple[int, ...]]
) -> Sequence[tuple[Allocation, ...]]:
    """[rows]: cores and memory as `place_at` deals them where they need not lie on one node: first on one that has all,
    a device's own before others, on the fullest of those; else on the emptiest. ``near`` [rows] are the nodes of the
    devices, each as often as it has one; of several nodes each gives its part first."""
    have, wanted = (fleet.cores_free[rows], fleet.memory_free[rows]), (ask.milli_cores, ask.memory_bytes)
    order = nodes = np.broadcast_to(np.arange(have[0].shape[1]), have[0].shape)
    begun = [np.zeros_like(here) for here in have]
    if ask.numa == "preferred":
        numbers = {some: number for number, some in enumerate(dict.fromkeys(near))}
        counts = [[some.count(node) for node in range(nodes.shape[1])] for some in numbers]
        index = np.array([numbers[some] for some in near], dtype=np.int64)
        beside = np.array(counts, dtype=np.int64).reshape(-1, nodes.shape[1])[index]
        wide = np.count_nonzero(beside, axis=1, keepdims=True) > 1
        whole = (have[0] >= wanted[0]) & (have[1] >= wanted[1]) & ~wide
        order = np.lexsort((nodes, np.where(whole, have[0], -have[0]), -beside, ~whole), axis=1)
        for what, unit in enumerate((CORE, memory_unit(ask))):
            ideal = np.array([portions(wanted[what], some, unit=unit) for some in counts], dtype=np.int64)
            begun[what] = np.where(wide, np.minimum(ideal.reshape(-1, nodes.shape[1])[index], have[what]), 0)
    taken = [_filled(want, here, begun=of, order=order) for want, here, of in zip(wanted, have, begun, strict=True)]
    known: dict[Hashable, tuple[Allocation, ...]] = {}
    dealt: list[tuple[Allocation, ...]] = []
    for ids, *one in zip(map(fleet.node_ids, rows.tolist()), order.tolist(), *(t.tolist() for t in taken), strict=True):
        # Hosts with the same free get the same.
        parts = tuple([(ids[n], some, held) for n, some, held in zip(*one, strict=True) if some or held])
        same = known.get(parts)
        if same is None:
            same = known[parts] = tuple(
                [Allocation(numa_node=node, milli_cores=some, memory_bytes=held) for node, some, held in parts]
            )
        dealt.append(same)
    return dealt


def _filled(want: int, have: Ints, *, begun: Ints, order: Ints) -> Ints:
    """[rows, nodes in order]: what is ``begun`` [rows, nodes], and the rest from the nodes as they come."""
    given = np.take_along_axis(begun, order, axis=1)
    free = np.take_along_axis(have, order, axis=1) - given
    rest = want - given.sum(axis=1, keepdims=True)
    filled: Ints = given + np.clip(rest - (np.cumsum(free, axis=1) - free), 0, free)
    return filled
