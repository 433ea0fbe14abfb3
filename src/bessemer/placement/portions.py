"""How cores and memory are dealt to the NUMA nodes that a request's devices lie on: to each in proportion to them.

What lies on two nodes runs on both: a process beside each device, with its memory. All cores of one node for devices of
two would send half of what they read over the link between sockets, and leave devices of the other node to those who
come later, without cores beside them.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from bessemer.core.asking import NumaPolicy, Request
from bessemer.core.units import MIB
from bessemer.placement.vectors import Ints

CORE = 1000
PLAIN = 2 * MIB
"""Ordinary memory is dealt in pieces of that size: what a transparent huge page is, and whole for any guest."""


def spans(policy: NumaPolicy, nodes: Collection[int]) -> bool:
    """Whether what is asked for is dealt to several nodes from the start: to those of its devices, none of them unknown
    (below 0)."""
    return policy == "preferred" and len({node for node in nodes if node >= 0}) > 1


def portions(want: int, here: Ints, *, weights: Ints, unit: int) -> Ints:
    """[hosts, nodes]: what each node gives of ``want``, as it has devices (``weights``), as far as it has it ``here``;
    both [hosts, nodes]. In multiples of ``unit`` but where that is all it has, so that each is less than one away from
    its share. What is left over, for a node lacks it or no unit is full, is for others to give; of a host without
    weights that is all."""
    total = weights.sum(axis=1, keepdims=True)
    units = np.where(total > 0, want // unit, 0)
    whole, part = np.divmod(units * weights, np.maximum(total, 1))
    left = units - whole.sum(axis=1, keepdims=True)
    # Those with the largest remainders get the units that are not shared out, one each.
    rank = np.argsort(np.argsort(-part, axis=1, kind="stable"), axis=1)
    given: Ints = np.minimum((whole + (rank < left)) * unit, here)
    return given


def core_unit(request: Request, smt: Ints) -> int:
    """Milli-cores that are dealt together: whole threads; of physical cores with ``smt`` [nodes] threads, 0 where
    nothing is known of them, whole ones of each node."""
    if request.cpu_policy != "cores":
        return CORE
    return CORE * int(np.lcm.reduce(smt[smt > 0], initial=1))


def memory_unit(request: Request) -> int:
    """Bytes that are dealt together."""
    return request.page_bytes or PLAIN
