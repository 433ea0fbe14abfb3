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


def variants(shape: Shape, *, fleet: Arrays, rows: Ints) -> Iterator[tuple[Shape, States, Ints]]:
    """The shape in thousandths, with the states of those of ``rows`` that have devices of which it is so many, in which
    these alone are open, and their places among the rows; one that says no bytes as it is, for all."""
    if not shape.device_bytes:
        yield shape, fleet.states(rows), np.arange(len(rows))
        return
    each = thousandths(fleet.device_memory[rows], shape.device_bytes)
    for milli in np.unique(each[each <= WHOLE]).tolist():
        there = np.flatnonzero((each == milli).any(axis=1))
        yield shape.taken(milli), replace(fleet.states(rows[there]), open=each[there] == milli), there


def costs_of(policy: Policy, shape: Shape, *, fleet: Arrays, rows: Ints) -> Costs:
    """[rows]: what the policy says of the shape there; of one in bytes the least over what it may be in thousandths."""
    least = Costs(np.full(len(rows), np.inf), np.zeros(len(rows), dtype=np.int64))
    for one, states, there in variants(shape, fleet=fleet, rows=rows):
        found = policy.costs(one, states)
        if not shape.device_bytes:
            return found
        value = np.where(usable(one, states).any(axis=1), found.value, np.inf)
        milli = found.milli if one.shared else np.full(len(there), WHOLE)
        better = value < least.value[there]
        least.value[there[better]], least.milli[there[better]] = value[better], milli[better]
    return least
