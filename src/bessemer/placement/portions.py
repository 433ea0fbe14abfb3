"""How cores and memory are dealt to the NUMA nodes that a request's devices lie on: to each in proportion to them.

What lies on two nodes runs on both: a process beside each device, with its memory. All cores of one node for devices of
two would send half of what they read over the link between sockets, and leave devices of the other node to those who
come later, without cores beside them.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from bessemer.core.asking import NumaPolicy, Request
from bessemer.core.units import MIB
from bessemer.placement.vectors import Ints

CORE = 1000
PLAIN = 2 * MIB
"""Ordinary memory is dealt in pieces of that size: what a transparent huge page is, and whole for any guest."""


def spans(policy: NumaPolicy, nodes: Collection[int]) -> bool:
    """Whether what is asked for is dealt to several nodes from the start: to those of its devices, of which one
    that is not known (below 0) is none."""
    return policy == "preferred" and len({node for node in nodes if node >= 0}) > 1


def portions(want: int, weights: Sequence[int], *, unit: int) -> list[int]:
    """What each node is to give of ``want`` as it has devices (``weights``): in multiples of ``unit``, each less than
    one away from its share. A rest that fills no unit is nobody's part; without weights all is."""
    total, units = sum(weights) or 1, want // unit if any(weights) else 0
    parts = [divmod(units * weight, total) for weight in weights]
    left = units - sum(whole for whole, _ in parts)
    # Those with the largest remainders get the units that are not shared out, one each.
    more = sorted(range(len(parts)), key=lambda node: -parts[node][1])[:left]
    return [unit * (whole + (node in more)) for node, (whole, _) in enumerate(parts)]


def core_unit(request: Request, smt: Ints) -> int:
    """Milli-cores that are dealt together: whole threads; of physical cores with ``smt`` [nodes] threads, 0 where
    nothing is known of them, whole ones of each node."""
    if request.cpu_policy != "cores":
        return CORE
    return CORE * math.lcm(*(threads for threads in smt.tolist() if threads > 0))


def memory_unit(request: Request) -> int:
    """Bytes that are dealt together."""
    return request.page_bytes or PLAIN
