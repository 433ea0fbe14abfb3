"""`searched`: on each of some hosts, the cheapest set of claims without which a request fits there.

Branch and bound, over all the hosts at once: a node is a set of claims of a host, made from a smaller one by a claim
that comes later in the order of costs. A node is left out where it costs as much as the best that is known, where what
it still lacks cannot be had for the difference, and where it has a claim without another that is cheaper and gives all
that it gives. What fits is asked of the filters that decide in earnest; the more is removed, the more fits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bessemer.core.asking import Request
from bessemer.placement.filters import HARDWARE, fitting
from bessemer.placement.fleet import FleetArrays
from bessemer.placement.moves.holdings import Holdings
from bessemer.placement.policies import Floats
from bessemer.placement.sight import Sight
from bessemer.placement.vectors import Bools, Ints

ITEMS = 62
"""Claims of a host that are looked at: a set of them is one number. Of more, those that cost least."""

FRONTIER = 4096
"""Sets that are kept for the next step. Of more, those with the least bounds."""

HAIR = 1 - 1e-9
"""Costs that differ by less are equal: bounds come of a division."""


@dataclass(frozen=True, slots=True)
class Found:
    """The set ``slots`` of a host, what it costs, and a bound below which nothing costs there that was not looked at:
    infinite where all was."""

    row: int
    slots: tuple[int, ...]
    cost: float
    bound: float


@dataclass(frozen=True, slots=True)
class _Items:
    """Claims that may be removed, of H hosts with at most K each, by cost. ``slots`` [H, K] is -1 and ``cost`` [H, K]
    infinite where there is none; ``cores`` and ``memory`` [H, K, nodes], ``milli`` [H, K, devices] are what each gives
    back. ``first`` [H, K] are as bits those without which it is not removed. ``prices`` [H, K + 1, 3]: the least cost
    of a unit of what may be `lacking` among the claims from this one on. ``cut`` [H]: there were more."""

    rows: Ints
    slots: Ints
    cost: Floats
    cores: Ints
    memory: Ints
    milli: Ints
    first: Ints
    prices: Floats
    cut: Bools


@dataclass(frozen=True, slots=True)
class _Nodes:
    """[m]: sets of claims. ``host`` is an index into the hosts, ``bits`` the set, ``last`` its last claim; the rest is
    what is free after it."""

    host: Ints
    bits: Ints
    last: Ints
    cost: Floats
    cores: Ints
    memory: Ints
    milli: Ints

    def __len__(self) -> int:
        return len(self.host)

    def some(self, which: Bools | Ints) -> _Nodes:
        return _Nodes(*(getattr(self, name)[which] for name in self.__slots__))


def searched(holdings: Holdings, request: Request, *, cost: Floats, rows: Ints) -> Sequence[Found]:
    """The best set of each host on which there is one. Hosts must be open to the request, whatever is free there."""
    fleet = holdings.fleet
    items = _items(holdings, request, cost=cost, rows=rows)
    hosts = np.arange(len(rows))
    nothing = np.zeros(len(rows), dtype=np.int64)
    start = _Nodes(
        hosts,
        nothing,
        nothing - 1,
        np.zeros(len(rows)),
        fleet.cores_free[rows],
        fleet.memory_free[rows],
        fleet.device_milli[rows],
    )
    best, bits = _thinned(fleet, request, items=items, start=start)
    bound = np.where(items.cut, 0.0, np.inf)
    start = start.some(np.isfinite(best))
    while len(start):
        fits = _fits(fleet, request, rows=rows, nodes=start)
        _improve(best, bits, fitted=start.some(fits))
        start = _grown(start.some(~fits), items, best=best, request=request, fleet=fleet)
        start = _kept(start, items, bound=bound, lacks=_lacks(fleet, request, rows=rows, nodes=start))
    return [
        Found(
            int(row),
            tuple(int(slot) for k, slot in enumerate(items.slots[h]) if int(bits[h]) >> k & 1),
            float(best[h]),
            float(bound[h]) if bound[h] < best[h] else np.inf,
        )
        for h, row in enumerate(rows)
        if np.isfinite(best[h])
    ]


# --- claims -------------------------------------------------------------------------------------------------------


def _items(holdings: Holdings, request: Request, *, cost: Floats, rows: Ints) -> _Items:
    """Of each host, the claims that may be removed and give back anything that could help."""
    fleet = holdings.fleet
    sight = Sight.of(fleet.view(rows), request)
    chosen = [_useful(holdings, sight, cost=cost, host=host, row=row) for host, row in enumerate(rows.tolist())]
    cut = np.array([len(slots) > ITEMS for slots in chosen], dtype=np.bool_)
    wide = min(max(map(len, chosen), default=0), ITEMS)
    h, n, d = len(rows), fleet.cores_free.shape[1], fleet.device_milli.shape[1]
    slots = np.full((h, wide), -1, dtype=np.int64)
    costs = np.full((h, wide), np.inf)
    cores, memory, milli = (np.zeros((h, wide, width), dtype=np.int64) for width in (n, n, d))
    for at, (row, mine) in enumerate(zip(rows.tolist(), chosen, strict=True)):
        columns = {device.id: column for column, device in enumerate(fleet.devices(row))}
        nodes = {node: column for column, node in enumerate(fleet.node_ids(row))}
        for k, slot in enumerate(mine[:ITEMS]):
            hold = holdings.held(slot)[1]
            slots[at, k], costs[at, k] = slot, cost[slot]
            milli[at, k, [columns[device] for device in set(hold.devices) & columns.keys()]] = hold.frees
            parts = [(nodes[part.numa_node], part) for part in hold.allocations if part.numa_node in nodes]
            np.add.at(cores[at, k], [node for node, _ in parts], [part.taken_milli_cores for _, part in parts])
            np.add.at(memory[at, k], [node for node, _ in parts], [part.plain_bytes for _, part in parts])
    of_devices = np.where(sight.wanted[:, None], milli, 0).sum(axis=2)
    prices = _prices(costs, cores.sum(axis=2), memory.sum(axis=2), of_devices)
    first = _dominators(costs, np.concatenate([cores, memory, milli * sight.wanted[:, None]], axis=2))
    return _Items(rows, slots, costs, cores, memory, milli, first, prices, cut)


def _useful(holdings: Holdings, sight: Sight, *, cost: Floats, host: int, row: int) -> Sequence[int]:
    """By cost, then by uid. ``sight`` is of the hosts that are searched."""
    request = sight.request
    wanted = {device.id for column, device in enumerate(holdings.fleet.devices(row)) if sight.wanted[host, column]}
    near = request.numa == "required"
    for_cores = near or bool(sight.cores_sum[host] < request.milli_cores)
    for_memory = near or bool(sight.memory_sum[host] < request.memory_bytes)

    def helps(slot: int) -> bool:
        hold = holdings.held(slot)[1]
        return (
            (request.device_count > 0 and not wanted.isdisjoint(hold.devices))
            or (for_cores and any(part.milli_cores for part in hold.allocations))
            or (for_memory and any(part.plain_bytes for part in hold.allocations))
        )

    slots = [slot for slot in holdings.at(row) if np.isfinite(cost[slot]) and helps(slot)]
    return sorted(slots, key=lambda slot: (cost[slot], holdings.held(slot)[0]))


def _prices(cost: Floats, *units: Ints) -> Floats:
    """[H, K + 1, units]: the least cost of a unit among the claims from each on."""
    h, k = cost.shape
    prices = np.full((h, k + 1, len(units)), np.inf)
    for number, given in enumerate(units):
        each = np.where((given > 0) & np.isfinite(cost), cost / np.maximum(given, 1), np.inf)
        prices[:, :k, number] = np.minimum.accumulate(each[:, ::-1], axis=1)[:, ::-1]
    return prices


def _dominators(cost: Floats, gives: Ints) -> Ints:
    """[H, K]: as bits the claims that cost no more and give all that this one gives; equal ones in their order."""
    h, k = cost.shape
    bits = np.zeros((h, k), dtype=np.int64)
    for other in range(k):
        # Those before it cost no more.
        more = (gives[:, other, None] >= gives[:, other + 1 :]).all(axis=2) & np.isfinite(cost[:, other + 1 :])
        bits[:, other + 1 :] |= more.astype(np.int64) << other
    return bits


# --- sets of them -------------------------------------------------------------------------------------------------


def _fits(fleet: FleetArrays, request: Request, *, rows: Ints, nodes: _Nodes) -> Bools:
    """[m]: whether the request fits after each set."""
    if not len(nodes):
        return np.zeros(0, dtype=np.bool_)
    return fitting(_seen(fleet, request, rows=rows, nodes=nodes), HARDWARE)


def _seen(fleet: FleetArrays, request: Request, *, rows: Ints, nodes: _Nodes) -> Sight:
    sight = Sight.of(fleet.view(rows[nodes.host]), request)
    return replace(sight, cores_free=nodes.cores, memory_free=nodes.memory, device_milli=nodes.milli)


def _lacks(fleet: FleetArrays, request: Request, *, rows: Ints, nodes: _Nodes) -> Floats:
    """[m, 3]: see `lacking`."""
    return np.stack(lacking(_seen(fleet, request, rows=rows, nodes=nodes)), axis=1)


def lacking(sight: Sight) -> tuple[Floats, Floats, Floats]:
    """[hosts] each: cores and memory that are lacking in sum, and thousandths of the devices that lack least of what is
    asked for of each, as many as are asked for."""
    request = sight.request
    cores = np.maximum(request.milli_cores - sight.cores_sum, 0).astype(np.float64)
    memory = np.maximum(request.memory_bytes - sight.memory_sum, 0).astype(np.float64)
    if not request.device_count:
        return cores, memory, np.zeros(sight.size)
    count = min(request.device_count, sight.device_milli.shape[1])
    short = np.where(sight.wanted, np.maximum(sight.each - sight.device_milli, 0), np.inf)
    least = np.partition(short, count - 1, axis=1)[:, :count]
    return cores, memory, np.where(np.isfinite(least), least, 0.0).sum(axis=1)


def _bound(nodes: _Nodes, items: _Items, *, lacks: Floats) -> Floats:
    """[m]: what any set costs at least that fits and grows from each."""
    prices = items.prices[nodes.host, nodes.last + 1]
    # One more goes in any case, and costs as much as the next at least.
    following = np.append(items.cost, np.full((len(items.cost), 1), np.inf), axis=1)[nodes.host, nodes.last + 1]
    more = np.where(lacks > 0, lacks * np.where(lacks > 0, prices, 0.0), 0.0).max(axis=1)
    bound: Floats = nodes.cost + np.maximum(more, following)
    return bound


def _thinned(fleet: FleetArrays, request: Request, *, items: _Items, start: _Nodes) -> tuple[Floats, Ints]:
    """[H], [H]: what a first set costs, and it as bits: all claims, but for those, from the dearest on, that may as
    well stay. Infinite where not even without all of them it fits."""
    there = items.slots >= 0
    bits = (there.astype(np.int64) << np.arange(there.shape[1])).sum(axis=1)
    cores = start.cores + items.cores.sum(axis=1)
    memory = start.memory + items.memory.sum(axis=1)
    milli = start.milli + items.milli.sum(axis=1)
    nodes = replace(start, bits=bits, cores=cores, memory=memory, milli=milli)
    able = _fits(fleet, request, rows=items.rows, nodes=nodes)
    for k in reversed(range(there.shape[1])):
        fewer = replace(
            nodes,
            bits=nodes.bits & ~(1 << k),
            cores=nodes.cores - items.cores[:, k],
            memory=nodes.memory - items.memory[:, k],
            milli=nodes.milli - items.milli[:, k],
        )
        keep = _fits(fleet, request, rows=items.rows, nodes=fewer)
        nodes = replace(
            nodes,
            bits=np.where(keep, fewer.bits, nodes.bits),
            cores=np.where(keep[:, None], fewer.cores, nodes.cores),
            memory=np.where(keep[:, None], fewer.memory, nodes.memory),
            milli=np.where(keep[:, None], fewer.milli, nodes.milli),
        )
    chosen = (nodes.bits[:, None] >> np.arange(there.shape[1]) & 1).astype(np.bool_)
    cost = np.where(able, np.where(chosen, items.cost, 0.0).sum(axis=1), np.inf)
    return cost, nodes.bits


def _improve(best: Floats, bits: Ints, *, fitted: _Nodes) -> None:
    """What fits is better where it costs less; of equal ones the first."""
    for node in range(len(fitted)):
        host = int(fitted.host[node])
        if fitted.cost[node] < best[host]:
            best[host], bits[host] = fitted.cost[node], fitted.bits[node]


def _grown(nodes: _Nodes, items: _Items, *, best: Floats, request: Request, fleet: FleetArrays) -> _Nodes:
    """Each set with one claim more that comes after its last; those that may still be better than what is known."""
    if not len(nodes) or not items.cost.shape[1]:
        return nodes.some(np.zeros(len(nodes), dtype=np.bool_))
    k = np.arange(items.cost.shape[1])
    cost = nodes.cost[:, None] + items.cost[nodes.host]
    first = items.first[nodes.host]
    whole = (nodes.bits[:, None] & first) == first
    better = cost < HAIR * best[nodes.host, None]
    which, claim = np.nonzero((k > nodes.last[:, None]) & whole & better)
    old = nodes.some(which)
    grown = _Nodes(
        old.host,
        old.bits | (np.int64(1) << claim),
        claim,
        cost[which, claim],
        old.cores + items.cores[old.host, claim],
        old.memory + items.memory[old.host, claim],
        old.milli + items.milli[old.host, claim],
    )
    lacks = _lacks(fleet, request, rows=items.rows, nodes=grown)
    # What lacks nothing in sum is asked of the filters next; what does must be able to become cheap enough.
    least = np.where((lacks > 0).any(axis=1), _bound(grown, items, lacks=lacks), grown.cost)
    return grown.some(least < HAIR * best[grown.host])


def _kept(nodes: _Nodes, items: _Items, *, bound: Floats, lacks: Floats) -> _Nodes:
    """As many as may be; ``bound`` learns what was left out."""
    if len(nodes) <= FRONTIER:
        return nodes
    least = np.where((lacks > 0).any(axis=1), _bound(nodes, items, lacks=lacks), nodes.cost)
    order = np.argsort(least, kind="stable")
    out = order[FRONTIER:]
    np.minimum.at(bound, nodes.host[out], least[out])
    return nodes.some(np.sort(order[:FRONTIER]))
