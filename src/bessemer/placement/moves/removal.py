"""The cheapest removals on one host after which a request fits there.

Three steps, each over arrays. A host comes into question when the request would fit with all removed that may be.
A bound says what that costs there at least: what the request lacks in sum (cores, memory, devices), each at the best
price that a removable claim of the host has for it. Then hosts are searched exactly, from the least bound on, until no
other can be cheaper (`search`: branch and bound over sets of claims).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bessemer.core.asking import Decision, Request
from bessemer.placement.choose import place_at
from bessemer.placement.filters import fitting
from bessemer.placement.fleet import FleetArrays
from bessemer.placement.moves.holdings import Columns, Holdings, Parts
from bessemer.placement.moves.search import HAIR, Found, lacking, searched
from bessemer.placement.policies import Floats
from bessemer.placement.sight import Sight
from bessemer.placement.vectors import Bools, Ints

LOOKED = 32
"""Hosts that are searched at most: more only where bounds say little."""

BATCH = 16
"""Hosts that are searched at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """Without the claims ``uids`` the request goes to ``host`` as ``decision`` says. ``proven``: no set on any host
    costs less than this one, but for those told before it."""

    host: str
    uids: tuple[str, ...]
    cost: float
    decision: Decision
    proven: bool


def removals(
    holdings: Holdings, request: Request, *, cost: Floats, most: int = 4, looked: int = LOOKED
) -> tuple[Removal, ...]:
    """The cheapest set on each of ``most`` hosts, cheapest first; among equals the host's name decides. Each has been
    applied to the arrays, and the request fits.

    ``cost`` [slots] is what removing each claim costs, not below zero; infinite where it may not be removed. ``looked``
    hosts are searched at most.
    """
    holdings.refresh()
    fleet = holdings.fleet
    sight = Sight.of(fleet, request)
    emptied = without(sight, holdings, gone=np.isfinite(cost))
    open_to = fitting(emptied)
    bounds = _bounds(sight, holdings, cost=cost)
    # Of equal bounds the first by name, whatever order the hosts came in.
    rows = np.flatnonzero(open_to)
    rows = rows[np.lexsort((holdings.ranks()[rows], bounds[rows]))]
    best: list[Found] = []
    start = 0
    while start < min(len(rows), looked):
        if len(best) >= most and bounds[rows[start]] >= HAIR * best[most - 1].cost:
            break
        end = min(start + BATCH, looked)
        best += searched(holdings, request, cost=cost, rows=rows[start:end])
        best.sort(key=lambda found: (found.cost, fleet.names[found.row]))
        start = end
    # Whoever was not looked at costs as much as its bound at least.
    sure = min([*(found.bound for found in best), *bounds[rows[start : start + 1]].tolist()], default=np.inf)
    told = (_removal(holdings, request, found=found, sure=sure) for found in best[:most])
    return tuple(removal for removal in told if removal is not None)


def without(sight: Sight, held: Holdings | Parts, *, gone: Bools) -> Sight:
    """The sight after all claims of the slots ``gone`` [slots] are removed; of the hosts that both are of."""
    fleet, n = sight.fleet, sight.size

    def freed(columns: Columns | Mapping[str, Ints], value: str, *, width: int) -> Ints:
        values = np.where(gone[columns["slot"]], columns[value], 0)
        cells = columns["row"] * width + columns["column"]
        # Sums of doubles are exact here: what one host has of anything stays below 2**53.
        sums = np.bincount(cells, weights=values, minlength=n * width)
        return sums.astype(np.int64).reshape(n, width)

    nodes, devices = fleet.cores_free.shape[1], fleet.device_milli.shape[1]
    return replace(
        sight,
        cores_free=sight.cores_free + freed(held.nodes, "cores", width=nodes),
        memory_free=sight.memory_free + freed(held.nodes, "memory", width=nodes),
        device_milli=sight.device_milli + freed(held.devices, "milli", width=devices),
    )


def given_back(fleet: FleetArrays, request: Request, *, host: str, uids: Sequence[str]) -> Sight:
    """The one host as the request would see it after those claims are removed, counted from the claims themselves.
    Raises KeyError where one of them is not there."""
    row = fleet.row(host)
    if row is None:
        raise KeyError(host)
    sight = Sight.of(fleet.view(np.array([row])), request)
    cores, memory, milli = sight.cores_free.copy(), sight.memory_free.copy(), sight.device_milli.copy()
    nodes = {node: column for column, node in enumerate(fleet.node_ids(row))}
    held = fleet.held.at(host)
    for hold in (held[uid] for uid in uids):
        for part in hold.allocations:
            if part.numa_node in nodes:
                cores[0, nodes[part.numa_node]] += part.taken_milli_cores
                memory[0, nodes[part.numa_node]] += part.plain_bytes
        for column, device in enumerate(fleet.devices(row)):
            milli[0, column] += hold.frees * (device.id in hold.devices)
    return replace(sight, cores_free=cores, memory_free=memory, device_milli=milli)


def _removal(holdings: Holdings, request: Request, *, found: Found, sure: float) -> Removal | None:
    """What was found, tried on the arrays; None were it not so."""
    host = holdings.fleet.names[found.row]
    uids = tuple(holdings.held(slot)[0] for slot in found.slots)
    after = given_back(holdings.fleet, request, host=host, uids=uids)
    if not fitting(after).any():
        return None
    decision = place_at(after, 0, score={"removalCost": found.cost})
    return Removal(host=host, uids=uids, cost=found.cost, decision=decision, proven=HAIR * found.cost <= sure)


def _bounds(sight: Sight, holdings: Holdings, *, cost: Floats) -> Floats:
    """[hosts]: what it costs there at least; 0 where it fits as it is."""
    n, slots = sight.size, holdings.claims.size
    claims, devices, nodes = holdings.claims, holdings.devices, holdings.nodes
    rows = claims["row"]
    wanted = np.where(sight.wanted[devices["row"], devices["column"]], devices["milli"], 0)
    gives = (
        np.bincount(nodes["slot"], nodes["cores"], slots),
        np.bincount(nodes["slot"], nodes["memory"], slots),
        np.bincount(devices["slot"], wanted, slots),
    )
    removable = np.isfinite(cost) & (claims["used"] > 0)
    least = _least(rows[removable], cost[removable], hosts=n)
    bounds = np.where(fitting(sight), 0.0, least)
    for lacks, units in zip(lacking(sight), gives, strict=True):
        there = removable & (units > 0)
        price = _least(rows[there], cost[there] / units[there], hosts=n)
        # At least one claim goes, and it is one that gives what is lacking.
        whole = _least(rows[there], cost[there], hosts=n)
        short = lacks > 0
        bounds[short] = np.maximum(bounds[short], np.maximum(price[short] * lacks[short], whole[short]))
    return bounds


def _least(rows: Ints, values: Floats, *, hosts: int) -> Floats:
    found = np.full(hosts, np.inf)
    np.minimum.at(found, rows, values)
    return found
