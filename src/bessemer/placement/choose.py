"""Which of the hosts that fit, and what of it: best fit, so that what is left free stays in large blocks.

Between hosts each criterion narrows the field, and the name settles a tie; within a host the smallest group of devices
that suffices is taken, for a share of one the fullest that suffices, and cores and memory beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bessemer.core.asking import Allocation, Decision
from bessemer.core.beside import Companion
from bessemer.placement.filters import fitting
from bessemer.placement.partitions import broken
from bessemer.placement.pick import use_of, way
from bessemer.placement.pins import allocation
from bessemer.placement.portions import core_unit, memory_unit, portions, spans
from bessemer.placement.sight import Sight
from bessemer.placement.slices.instances import UNCUT
from bessemer.placement.vectors import WHOLE, Bools, Floats, Ints

_NOWHERE = int(np.iinfo(np.int64).max)


def place(sight: Sight, fits: Bools | None = None, *, wish: int | None = None) -> Decision | None:
    """The best place, or None where nothing fits. ``fits`` are the hosts that do, for who has sifted them already;
    ``wish`` as for `place_at`."""
    if fits is None:
        fits = fitting(sight)
    if not fits.any():
        return None
    row, score = best_row(sight, fits)
    return place_at(sight, row, score=score, wish=wish)


def place_at(sight: Sight, row: int, *, score: Mapping[str, float], wish: int | None = None) -> Decision:
    """What to take of a host that fits. ``wish`` are the free thousandths of the device to take a share of; where none
    that would do has as much, it is as if nothing were wished."""
    if sight.offering[row]:
        apart, at = sight.partitions.apart, _partition(sight, row)
        return replace(place_at(apart, at, score=score), request=sight.request)
    fleet, spot, share = sight.fleet, _Spot(sight, row), sight.request.device_milli
    if sight.request.device_profile:
        return _instance(spot, score)
    gpus, beside = spot.take(wish)
    ids, others = fleet.devices(row), fleet.parts(row).others
    nodes = [gpu.node for gpu in gpus] or [int(fleet.other_node[row, column]) for _, column in beside]
    taken = [*(ids[gpu.column] for gpu in gpus), *(others[column] for _, column in beside)]
    return Decision(
        host=fleet.names[row],
        devices=tuple(ids[gpu.column].id for gpu in gpus),
        device_milli=int(sight.each[row, gpus[0].column]) if sight.request.device_bytes else share,
        allocations=spot.beside(nodes),
        companions=tuple(use_of(one, others[column]) for one, column in beside),
        tree=tuple(taken),
        fake=bool(fleet.fake[row]),
        score=score,
        request=sight.request,
    )


def _instance(spot: _Spot, score: Mapping[str, float]) -> Decision:
    """An instance of the device of the host where it loses least."""
    sight, row = spot.sight, spot.row
    request, fleet = sight.request, sight.fleet
    cost = np.where(_shareable(sight)[row], sight.instances.cost[row], np.inf)
    beside: Sequence[tuple[Companion, int]] = ()
    if request.companions:
        anywhere = np.where(sight.able[row], sight.instances.cost[row], np.inf)
        order = sorted(np.flatnonzero(sight.able[row]).tolist(), key=lambda at: (float(anywhere[at]), at))
        found = way(sight, row, order=order)
        (column,) = found.allowed()
        beside = found.companions([column])
    else:
        column = int(np.argmin(cost))
    device, others = fleet.devices(row)[column], fleet.parts(row).others
    table, start = sight.instances.spot(int(fleet.device_cut[row, column]))
    return Decision(
        host=fleet.names[row],
        devices=(device.id,),
        companions=tuple(use_of(one, others[at]) for one, at in beside),
        tree=(device, *(others[at] for _, at in beside)),
        device_milli=table.milli_of(request.device_profile),
        device_profile=request.device_profile,
        device_start=start,
        request=request,
        allocations=spot.beside([int(fleet.device_node[row, column])]),
        fake=bool(fleet.fake[row]),
        score=score,
    )


def _partition(sight: Sight, row: int) -> int:
    """Of the NVLink partitions that are free on a host that fits, and do, the one without which the fewest larger ones
    are left whole; of equals the one whose devices are nearest to each other. Beside cores and memory where it would
    rather be."""
    parts, request, fleet = sight.partitions, sight.request, sight.fleet
    does = (parts.rows == row) & parts.apart.together(numa=request.numa == "required")
    close = does & parts.apart.close if request.numa == "preferred" else does
    whole = fleet.device_sound[row] & (sight.device_milli[row] >= WHOLE)
    offer = fleet.offers.all[int(fleet.offer[row])]

    def harm(at: int) -> tuple[int, int, tuple[int, ...]]:
        columns = tuple(parts.columns[at].tolist())
        gpus = _Spot(parts.apart, at).usable()
        far = next(n for n, wish in enumerate(_CLOSENESS) if any(len(g) == len(gpus) for g in _grouped(gpus, wish)))
        return broken(offer, columns, whole=whole), far, columns

    return min(np.flatnonzero(close if close.any() else does).tolist(), key=harm)


def best_row(sight: Sight, fits: Bools) -> tuple[int, Mapping[str, float]]:
    """The row to take of those that fit, and the figures that decided, small is good in each; one that none of them has
    decides nothing and is left out."""
    rows: Ints = np.flatnonzero(fits)
    score: dict[str, float] = {}
    for name, cost in _criteria(sight):
        values = cost[rows]
        least = values.min()
        if least == _NOWHERE:
            continue
        score[name] = float(least)
        rows = rows[values == least]
        if len(rows) == 1:
            break
    names = sight.fleet.names
    return int(min(rows, key=lambda row: names[row])), score


def _criteria(sight: Sight) -> Iterator[tuple[str, Ints]]:
    request = sight.request
    if request.numa == "preferred":
        # A replica that spans NUMA nodes runs, but slower.
        yield "spansNumaNodes", (~sight.close).astype(np.int64)
    if request.device_profile:
        # What is cut already is used up first, where that takes least from those that come later.
        cost = instance_cost(sight)
        cuts = cost >= UNCUT
        yield "cutsDevice", cuts.astype(np.int64)
        yield "waysLost", np.where(np.isinf(cost), _NOWHERE, cost % UNCUT).astype(np.int64)
        yield "devicesLeft", _whole_count(sight) - cuts
    elif request.device_milli < WHOLE:
        # What is begun is used up first, and then what leaves more devices whole.
        left, begins = _left_on_device(sight)
        yield "milliLeftOnDevice", left
        yield "devicesLeft", _whole_count(sight) - begins
    elif request.device_count:
        # Whole groups stay whole: first the host with the tightest switch, then the one with the least left over.
        yield "devicesLeftOnSwitch", _slack(sight)
        yield "devicesLeft", sight.usable_count - request.device_count
    else:
        # What needs no device stays off the hosts that have some to give.
        yield "devicesLeft", _whole_count(sight)
    yield "milliCoresLeft", sight.cores_sum - request.milli_cores
    yield "memoryLeft", sight.memory_sum - request.memory_bytes


def _slack(sight: Sight) -> Ints:
    """[hosts]: devices that stay free on the tightest switch that holds all; `_NOWHERE` where none does."""
    groups = sight.groups(sight.fleet.device_switch)
    left = groups.counts - sight.request.device_count
    slack: Ints = np.full(sight.size, _NOWHERE, dtype=np.int64)
    np.minimum.at(slack, groups.rows[left >= 0], left[left >= 0])
    return slack


def instance_cost(sight: Sight) -> Floats:
    """[hosts]: what the instance that is asked for costs on the device where it loses least; infinite where on none."""
    cost: Floats = np.where(_shareable(sight), sight.instances.cost, np.inf).min(axis=1, initial=np.inf)
    return cost


def _whole_count(sight: Sight) -> Ints:
    """[hosts]: sound devices that nobody has anything of."""
    whole = sight.fleet.device_sound[: sight.size] & (sight.device_milli >= WHOLE)
    total: Ints = whole.sum(axis=1)
    return total


def _left_on_device(sight: Sight) -> tuple[Ints, Bools]:
    """[hosts]: thousandths that stay free on the device where that is least of those that a share can be taken of,
    `_NOWHERE` where none can; and whether only devices that are whole come to that."""
    rest = np.where(_shareable(sight), sight.device_milli - sight.each, _NOWHERE)
    left: Ints = rest.min(axis=1)
    begun = (rest == left[:, None]) & (sight.device_milli < WHOLE)
    return left, (left != _NOWHERE) & ~begun.any(axis=1)


def _shareable(sight: Sight) -> Bools:
    """[hosts, devices]: of which a share may be taken, and on each host, where that is wished and there are some, only
    those beside cores and memory."""
    if sight.request.numa == "legacy":
        return sight.able
    if sight.request.numa == "required":
        return sight.able_near
    chosen: Bools = np.where(sight.close[:, None], sight.able_near, sight.able)
    return chosen


# --- within one host --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Gpu:
    """A device that may be taken, by its column and its neighbours."""

    column: int
    model: int
    node: int
    switch: int
    nvlink: int


_CLOSENESS: Sequence[Sequence[str]] = (
    ("model", "switch", "node"),
    ("model", "switch"),
    ("model", "node"),
    ("model", "nvlink"),
    ("model",),
    (),
)
"""From near to far: devices that are equal in these are a group."""


@dataclass(frozen=True, slots=True)
class _Spot:
    """One host that fits, and what to take of it."""

    sight: Sight
    row: int

    def take(self, wish: int | None) -> tuple[Sequence[_Gpu], Sequence[tuple[Companion, int]]]:
        """The devices, and the companions by column."""
        request = self.sight.request
        whole = request.device_milli == WHOLE
        if not request.companions:
            return self.devices(self.usable()) if whole else [self.shared(wish)], ()
        found = way(self.sight, self.row, order=() if whole else self._by_share(wish))
        every = {gpu.column: gpu for gpu in self.usable()}
        spread = found.spread()
        gpus = self.devices([every[c] for c in found.allowed()]) if spread is None else [every[c] for c in spread]
        return gpus, found.companions([gpu.column for gpu in gpus])

    def devices(self, free: Sequence[_Gpu]) -> Sequence[_Gpu]:
        """Of those that are free the smallest group of the nearest sort that suffices, and of it what breaks up the
        least."""
        request = self.sight.request
        if request.device_count == 0:
            return ()
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
            enough = [group for group in groups if len(group) >= request.device_count and self._may_be(group[0])]
            if enough:
                group = min(enough, key=lambda group: (len(group), group[0].column))
                return _least_harm(group)[: request.device_count]
        raise AssertionError("a host that fits has the devices")

    def shared(self, wish: int | None) -> _Gpu:
        """The device to take a share of: one with the wished thousandths free, or else where least stays free; of
        equals one that is begun, and what breaks up the least."""
        free = self.sight.device_milli[self.row]
        left = list(zip(free - self.sight.each[self.row], free, strict=True))
        good = self._gpus(_shareable(self.sight))
        wished = [gpu for gpu in good if free[gpu.column] == wish] or good
        least = min(left[gpu.column] for gpu in wished)
        return _least_harm([gpu for gpu in wished if left[gpu.column] == least])[0]

    def _by_share(self, wish: int | None) -> list[int]:
        """Every device of which a share may be taken, by column, in the order in which `shared` would."""
        free = self.sight.device_milli[self.row]
        left = (free - self.sight.each[self.row]).tolist()
        harm = {gpu.column: n for n, gpu in enumerate(_least_harm(self._gpus(self.sight.able)))}
        return sorted(harm, key=lambda at: (free[at] != wish, left[at], free[at], harm[at]))

    def beside(self, device_nodes: Sequence[int]) -> tuple[Allocation, ...]:
        """Cores and memory beside devices on these nodes: of devices on several each node's part, where that is
        preferred; the rest from the nodes in their order, until there is enough."""
        sight, ask = self.sight, self.sight.request
        have = sight.cores_here[self.row].tolist(), sight.memory_here[self.row].tolist()
        wide = spans(ask.numa, device_nodes)
        given = self._portions(device_nodes, have) if wide else [[0] * len(one) for one in have]
        rest = [want - sum(of) for want, of in zip((ask.milli_cores, ask.memory_bytes), given, strict=True)]
        taken: list[Allocation] = []
        for node in self._node_order(device_nodes, wide=wide):
            some = [0, 0]
            for what, left in enumerate(rest):
                more = min(left, have[what][node] - given[what][node])
                some[what], rest[what] = given[what][node] + more, left - more
            if any(some):
                taken.append(allocation(sight, self.row, node=node, milli_cores=some[0], memory_bytes=some[1]))
        return tuple(taken)

    def _portions(self, device_nodes: Sequence[int], have: Sequence[Sequence[int]]) -> list[list[int]]:
        """Cores and memory that each node gives for its devices, as far as it has them."""
        ask = self.sight.request
        weights = [device_nodes.count(node) for node in range(len(have[0]))]
        wanted = (ask.milli_cores, ask.memory_bytes)
        units = core_unit(ask, self.sight.fleet.smt[self.row]), memory_unit(ask)
        return [
            list(map(min, portions(want, weights, unit=unit), here))
            for want, here, unit in zip(wanted, have, units, strict=True)
        ]

    def _node_order(self, device_nodes: Sequence[int], *, wide: bool) -> Sequence[int]:
        """NUMA nodes in the order in which cores and memory are taken from them."""
        policy, nodes = self.sight.request.numa, range(len(self.sight.fleet.node_ids(self.row)))
        if policy == "legacy":
            return nodes
        sight, shared = self.sight, self.sight.request.cpu_policy == "shared"
        cores = (sight.cores_free if shared else sight.cores_here)[self.row]

        # One node that holds all is best, a device's own before others; of several the one with the least left over.
        # Devices of several have no such node: what theirs lack comes from those with most devices, then most cores.
        def harm(node: int) -> tuple[bool, bool, int, int, int]:
            apart = policy == "required" and bool(device_nodes) and node not in device_nodes
            whole = not wide and self._holds_all(node)
            left = int(cores[node]) if whole else -int(cores[node])
            return (apart, not whole, -device_nodes.count(node), left, node)

        return sorted(nodes, key=harm)

    def usable(self) -> list[_Gpu]:
        """Those that may be taken."""
        return self._gpus(self.sight.usable)

    def _gpus(self, among: Bools) -> list[_Gpu]:
        """Those of the host; ``among`` is [hosts, devices]."""
        fleet, row = self.sight.fleet, self.row
        facts = (fleet.device_model, fleet.device_node, fleet.device_switch, fleet.device_nvlink)
        there = enumerate(zip(*(fact[row].tolist() for fact in facts), strict=True))
        return [_Gpu(at, *of) for (at, of), some in zip(there, among[row].tolist(), strict=True) if some]

    def _may_be(self, gpu: _Gpu) -> bool:
        """Where all must lie on one NUMA node: whether the group's node has the cores and the memory too."""
        return self.sight.request.numa != "required" or (gpu.node >= 0 and self._holds_all(gpu.node))

    def _holds_all(self, node: int) -> bool:
        return bool(self.sight.node_room[self.row, node])


def _grouped(gpus: Sequence[_Gpu], fields: Sequence[str]) -> list[list[_Gpu]]:
    groups: dict[tuple[int, ...], list[_Gpu]] = {}
    for gpu in gpus:
        key = tuple(getattr(gpu, field) for field in fields)
        # An unknown switch or domain is shared with nobody.
        if not any(value < 0 and field in {"switch", "nvlink"} for value, field in zip(key, fields, strict=True)):
            groups.setdefault(key, []).append(gpu)
    return list(groups.values())


def _least_harm(group: Sequence[_Gpu]) -> list[_Gpu]:
    """In an order that empties small switches before it breaks large ones."""
    on_switch: dict[int, int] = {}
    for gpu in group:
        on_switch[gpu.switch] = on_switch.get(gpu.switch, 0) + 1
    return sorted(group, key=lambda gpu: (on_switch[gpu.switch], gpu.switch, gpu.column))
