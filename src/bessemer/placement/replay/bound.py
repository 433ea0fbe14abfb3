"""What would be blocked were nothing in the way but how much there is: a mark for what a rule of placement may reach.

`pooled` takes the fleet as one host in which everything is packed anew, as well as can be, whenever somebody comes. It
refuses nothing that fits, as every policy here. Shares count as much of a device as they are worth at prices under
which no device can be cut into more than itself (Gilmore and Gomory 1961); no packing passes that. It is a mark and not
quite a bound: who may refuse what fits, and knows the future, can do better.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence

import numpy as np

from bessemer.core.asking import Request
from bessemer.placement.demand import Mix
from bessemer.placement.demand.mix import Floats
from bessemer.placement.demand.waste import WHOLE, best_cuts, cutting_prices, rounded
from bessemer.placement.hostclass import HostClass
from bessemer.placement.replay.arrivals import Visits
from bessemer.placement.replay.trace import Trace, milli_of
from bessemer.placement.shape import Shape

_CLOSE = 1e-6


def pooled(trace: Trace, visits: Visits) -> float:
    """Which part of the devices that are offered after the warm-up would be refused. Devices, cores and memory count
    in sum."""
    room = _room(trace)
    needs = _needs(trace.requests)
    free = room.copy()
    leaving: list[tuple[float, int]] = []
    offered = refused = 0
    for index, comes, leaves in zip(
        visits.indices.tolist(), visits.comes.tolist(), visits.leaves.tolist(), strict=True
    ):
        while leaving and leaving[0][0] <= comes:
            free += needs[heapq.heappop(leaving)[1]]
        fits = bool((needs[index] <= free + _CLOSE * room).all())
        if fits:
            free -= needs[index]
            heapq.heappush(leaving, (leaves, index))
        if comes >= visits.warm_up:
            offered += milli_of(trace.requests[index])
            refused += milli_of(trace.requests[index]) * (not fits)
    return refused / max(1, offered)


def _room(trace: Trace) -> Floats:
    """[3]: thousandths of devices, milli-cores and bytes of memory of all hosts."""
    kinds = [HostClass.of(host) for host in trace.hosts]
    each = [[WHOLE * kind.device_count, kind.milli_cores, kind.memory_bytes] for kind in kinds]
    total: Floats = np.array(each, dtype=np.float64).sum(axis=0)
    return total


def _needs(requests: Sequence[Request]) -> Floats:
    """[requests, 3]: the same of each request; of shares what they are worth, be it more or less."""
    sizes = rounded(Mix.of(Counter(map(Shape.of, requests))).shares)
    prices = cutting_prices(sizes)
    worth = WHOLE * best_cuts(list(sizes), prices) if prices is not None else np.arange(WHOLE + 1.0)
    shared = [request.device_count == 1 and request.device_milli < WHOLE for request in requests]
    devices = [
        float(worth[request.device_milli]) if part else float(milli_of(request))
        for request, part in zip(requests, shared, strict=True)
    ]
    cores = [request.milli_cores for request in requests]
    return np.array([devices, cores, [request.memory_bytes for request in requests]], dtype=np.float64).T
