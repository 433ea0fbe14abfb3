"""Which of the hosts that fit, and what of it: best fit, so that what is left free stays in large blocks.

Between hosts (`best_row`) each criterion narrows the field, and the name settles a tie; within a host (`parts`) the
smallest group of devices that suffices is taken, and cores and memory beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bessemer.core.values import Allocation, Decision, Request
from bessemer.placement.fleet import Bools, Ints
from bessemer.placement.sight import Sight


def best_row(sight: Sight, request: Request, fits: Bools) -> tuple[int, Mapping[str, float]]:
    """The row to take of those that fit, and the figures that decided. Small is good in each."""
    rows: Ints = np.flatnonzero(fits)
    score: dict[str, float] = {}
    for name, cost in _criteria(sight, request):
        values = cost[rows]
        least = values.min()
        score[name] = float(least)
        rows = rows[values == least]
        if len(rows) == 1:
            break
    names = sight.fleet.names
    return int(min(rows, key=lambda row: names[row])), score


def _criteria(sight: Sight, request: Request) -> Iterator[tuple[str, Ints]]:
    usable = sight.usable(request)
    free = usable.sum(axis=1)
    if request.numa == "preferred":
        # A replica that spans NUMA nodes runs, but slower.
        yield "spansNumaNodes", (~sight.together(request, usable, numa=True)).astype(np.int64)
    if request.device_count:
        # Whole groups stay whole: first the host with the tightest switch, then the one with the least left over.
        yield "devicesLeftOnSwitch", _slack(sight, request, usable)
        yield "devicesLeft", free - request.device_count
    else:
        # What needs no device stays off the hosts that have some to give.
        yield "devicesLeft", (sight.fleet.device_sound[: sight.size] & sight.device_free).sum(axis=1)
    yield "milliCoresLeft", sight.cores_sum - request.milli_cores
    yield "memoryLeft", sight.memory_sum - request.memory_bytes


def _slack(sight: Sight, request: Request, usable: Bools) -> Ints:
    """[hosts]: devices that stay free on the tightest switch that holds all; a large figure where none does."""
    slack: Ints = np.full(sight.size, np.iinfo(np.int64).max, dtype=np.int64)
    for switch in range(sight.fleet.switch_count):
        there = (usable & (sight.fleet.device_switch[: sight.size] == switch)).sum(axis=1)
        enough = there >= request.device_count
        slack[enough] = np.minimum(slack[enough], there[enough] - request.device_count)
    return slack


# --- within one host --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Gpu:
    """A device that may be taken, by its column and its neighbours."""

    column: int
    model: int
    node: int
    switch: int
    nvlink: int


_Group = tuple[int, ...]
_CLOSENESS: Sequence[Sequence[str]] = (
    ("model", "switch", "node"),
    ("model", "switch"),
    ("model", "node"),
    ("model", "nvlink"),
    ("model",),
    (),
)
"""From near to far: devices that are equal in these are a group."""


def parts(sight: Sight, request: Request, row: int, score: Mapping[str, float]) -> Decision:
    """What to take of a host that fits."""
    gpus = _choose_devices(sight, request, row)
    nodes = _node_order(sight, request, row, [gpu.node for gpu in gpus])
    ids = sight.fleet.devices(row)
    return Decision(
        host=sight.fleet.names[row],
        devices=tuple(ids[gpu.column].id for gpu in gpus),
        allocations=_spread(sight, request, row, nodes),
        fake=bool(sight.fleet.fake[row]),
        score=score,
    )


def _choose_devices(sight: Sight, request: Request, row: int) -> list[_Gpu]:
    if request.device_count == 0:
        return []
    free = _free_gpus(sight, request, row)
    must = [
        field
        for wanted, field in (
            (request.numa == "required", "node"),
            (request.same_switch, "switch"),
            (request.same_nvlink, "nvlink"),
        )
        if wanted
    ]
    for wish in _CLOSENESS:
        groups = _grouped(free, [*must, *wish])
        enough = [g for g in groups if len(g) >= request.device_count and _may_be(sight, request, row, g[0])]
        if enough:
            group = min(enough, key=lambda g: (len(g), g[0].column))
            return _least_harm(group)[: request.device_count]
    raise AssertionError("a host that fits has the devices")


def _free_gpus(sight: Sight, request: Request, row: int) -> list[_Gpu]:
    fleet = sight.fleet
    usable = np.flatnonzero(sight.usable(request)[row])
    return [
        _Gpu(
            int(column),
            int(fleet.device_model[row, column]),
            int(fleet.device_node[row, column]),
            int(fleet.device_switch[row, column]),
            int(fleet.device_nvlink[row, column]),
        )
        for column in usable
    ]


def _grouped(gpus: Sequence[_Gpu], fields: Sequence[str]) -> list[list[_Gpu]]:
    groups: dict[_Group, list[_Gpu]] = {}
    for gpu in gpus:
        key = tuple(getattr(gpu, field) for field in fields)
        # An unknown switch or domain is shared with nobody.
        if not any(value < 0 and field in {"switch", "nvlink"} for value, field in zip(key, fields, strict=True)):
            groups.setdefault(key, []).append(gpu)
    return list(groups.values())


def _may_be(sight: Sight, request: Request, row: int, gpu: _Gpu) -> bool:
    """Where all must lie on one NUMA node: whether the group's node has the cores and the memory too."""
    return request.numa != "required" or (gpu.node >= 0 and _holds_all(sight, request, row, gpu.node))


def _least_harm(group: Sequence[_Gpu]) -> list[_Gpu]:
    """In an order that empties small switches before it breaks large ones."""
    on_switch: dict[int, int] = {}
    for gpu in group:
        on_switch[gpu.switch] = on_switch.get(gpu.switch, 0) + 1
    return sorted(group, key=lambda gpu: (on_switch[gpu.switch], gpu.switch, gpu.column))


def _holds_all(sight: Sight, request: Request, row: int, node: int) -> bool:
    return bool(
        sight.cores_free[row, node] >= request.milli_cores and sight.memory_free[row, node] >= request.memory_bytes
    )


def _node_order(sight: Sight, request: Request, row: int, device_nodes: Sequence[int]) -> Sequence[int]:
    """NUMA nodes in the order in which cores and memory are taken from them."""
    nodes = range(len(sight.fleet.node_ids(row)))
    if request.numa == "legacy":
        return nodes
    cores = sight.cores_free[row]

    # One node that holds all is best, a device's own before others; of several the one with the least left over.
    def harm(node: int) -> tuple[bool, int, int, int]:
        whole = _holds_all(sight, request, row, node)
        return (not whole, -device_nodes.count(node), int(cores[node]) if whole else -int(cores[node]), node)

    def harm_required(node: int) -> tuple[bool, int]:
        return (bool(device_nodes) and node not in device_nodes, harm(node)[2])

    order = sorted(nodes, key=harm)
    return sorted(order, key=harm_required) if request.numa == "required" and device_nodes else order


def _spread(sight: Sight, request: Request, row: int, nodes: Sequence[int]) -> tuple[Allocation, ...]:
    """Cores and memory from the nodes in their order, until there is enough."""
    ids = sight.fleet.node_ids(row)
    cores, memory = request.milli_cores, request.memory_bytes
    taken: list[Allocation] = []
    for node in nodes:
        some_cores = min(cores, max(0, int(sight.cores_free[row, node])))
        some_memory = min(memory, max(0, int(sight.memory_free[row, node])))
        if some_cores or some_memory:
            taken.append(Allocation(numa_node=ids[node], milli_cores=some_cores, memory_bytes=some_memory))
        cores, memory = cores - some_cores, memory - some_memory
    return tuple(taken)
