"""Shares that are asked for in bytes of a device's memory: how many thousandths of which device that is.

What is held, counted, billed and kept is always thousandths; a request alone may say bytes. A device that does not say
how much memory it has gives none of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from bessemer.placement.arrays import Arrays
from bessemer.placement.policies import Costs, Policy
from bessemer.placement.policies.ways import usable
from bessemer.placement.shape import Shape
from bessemer.placement.states import States
from bessemer.placement.vectors import WHOLE, Ints, thousandths


def variants(shape: Shape, *, fleet: Arrays, rows: Ints) -> Iterator[tuple[Shape, States]]:
    """The shape in thousandths, with the states of ``rows`` in which the devices are open of which it is so many; one
    that says no bytes as it is."""
    states = fleet.states(rows)
    if not shape.device_bytes:
        yield shape, states
        return
    each = thousandths(fleet.device_memory[rows], shape.device_bytes)
    for milli in np.unique(each[each <= WHOLE]).tolist():
        yield shape.taken(milli), replace(states, open=each == milli)


def costs_of(policy: Policy, shape: Shape, *, fleet: Arrays, rows: Ints) -> Costs:
    """[rows]: what the policy says of the shape there; of one in bytes the least over what it may be in thousandths."""
    least = Costs(np.full(len(rows), np.inf), np.zeros(len(rows), dtype=np.int64))
    for one, states in variants(shape, fleet=fleet, rows=rows):
        found = policy.costs(one, states)
        if not shape.device_bytes:
            return found
        value = np.where(usable(one, states).any(axis=1), found.value, np.inf)
        milli = found.milli if one.shared else np.full(len(rows), WHOLE)
        better = value < least.value
        least = Costs(np.where(better, value, least.value), np.where(better, milli, least.milli))
    return least
