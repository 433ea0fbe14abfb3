"""`rises`: what becomes of hosts when one of a shape is put there, for each way to do so.

Of whole devices the first that are free are taken: which ones they are matters to how they lie, not to how many are
left. Of shares each device that has enough left is a way of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from bessemer.placement.demand.mix import Floats
from bessemer.placement.demand.waste import WHOLE
from bessemer.placement.policies import Costs
from bessemer.placement.policies.fragments import Fragments
from bessemer.placement.shape import Shape
from bessemer.placement.states import States
from bessemer.placement.vectors import Bools, Ints

BATCH = 4096
"""Devices that are looked at together: what they need in between stays in the processor's caches, and never is much."""


@dataclass(frozen=True, slots=True)
class Rises:
    """By how much it rises, in thousandths of a device: ``fragments`` [B, W], and ``waste`` [B, W], the sum of a table
    over devices. There is one way a host, or for a share one a device; inf in ``fragments`` where it is none."""

    fragments: Floats
    waste: Floats


def rises(shape: Shape, states: States, *, fragments: Fragments, waste: Floats) -> Rises:
    """``waste`` [WHOLE + 1]: what a device with so much free adds to it."""
    rows = fragments.rows(states)
    cells = fragments.cells(states.milli, rows)
    sums = cells.sum(axis=1)
    cores = states.cores - shape.milli_cores
    before = fragments.usable(sums, states.cores)[:, None]
    lost = shape.milli * fragments.weight
    if shape.shared:
        possible = usable(shape, states)
        left = np.where(possible, states.milli - shape.device_milli, 0)
        after = fragments.usable(sums[:, None, :] + fragments.cells(left, rows) - cells, cores[:, None])
        return Rises(
            fragments=np.where(possible, before - after - lost, np.inf),
            waste=waste.take(left) - waste.take(states.milli),
        )
    if not shape.device_count:
        after = fragments.usable(sums, cores)[:, None]
        return Rises(fragments=before - after, waste=np.zeros((len(states), 1)))
    free = usable(shape, states)
    left = np.where(free & (free.cumsum(axis=1) <= shape.device_count), 0, states.milli)
    after = fragments.usable(fragments.cells(left, rows).sum(axis=1), cores)[:, None]
    change = (waste.take(left) - waste.take(states.milli)).sum(axis=1, keepdims=True)
    return Rises(fragments=before - after - lost, waste=change)


def cheapest_way(shape: Shape, states: States, *, values: Floats) -> Costs:
    """The least of ``values`` [B, W]; of devices that cost the same, the one with least free."""
    if not shape.shared:
        return Costs(values[:, 0], np.zeros(len(states), dtype=np.int64))
    least = values.min(axis=1, initial=np.inf)
    milli = np.where(values == least[:, None], states.milli, WHOLE + 1).min(axis=1, initial=WHOLE + 1)
    return Costs(least, milli)


def usable(shape: Shape, states: States) -> Bools:
    """[B, D]: devices of which the shape could have one."""
    enough: Bools = states.milli >= shape.device_milli
    if shape.device_models:
        accepted = np.array([name in shape.device_models for name in states.models] + [False], dtype=np.bool_)
        enough = enough & accepted[states.model]
    return enough if states.open is None else enough & states.open


def fullest(shape: Shape, states: States) -> Ints:
    """[B]: of the devices of which a share could be had, the free thousandths of the one with least; `WHOLE` + 1 where
    there is none, and 0 for what is no share."""
    if not shape.shared:
        return np.zeros(len(states), dtype=np.int64)
    least: Ints = np.where(usable(shape, states), states.milli, WHOLE + 1).min(axis=1, initial=WHOLE + 1)
    return least


def in_batches(costs: Callable[[States], Costs], states: States) -> Costs:
    """``costs`` of the same hosts, as many at a time as have `BATCH` devices."""
    hosts = max(1, BATCH // max(states.milli.shape[1], 1))
    if len(states) <= hosts:
        return costs(states)
    found = [costs(part) for part in _parts(states, hosts)]
    return Costs(np.concatenate([one.value for one in found]), np.concatenate([one.milli for one in found]))


def _parts(states: States, hosts: int) -> Iterator[States]:
    for start in range(0, len(states), hosts):
        part = slice(start, start + hosts)
        yield States(
            cores=states.cores[part],
            memory=states.memory[part],
            milli=states.milli[part],
            model=states.model[part],
            sizes=states.sizes[part],
            models=states.models,
            kind=None if states.kind is None else states.kind[part],
            kinds=states.kinds,
            open=None if states.open is None else states.open[part],
        )
