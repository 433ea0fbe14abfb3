"""`explained`: what a policy's costs on some hosts are made of, in thousandths of a device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from bessemer.placement.fleet import FleetArrays
from bessemer.placement.inbytes import costs_of, variants
from bessemer.placement.policies import Floats, Policy, Rationing
from bessemer.placement.policies.ways import usable
from bessemer.placement.shape import Shape
from bessemer.placement.states import States
from bessemer.placement.vectors import Ints


@runtime_checkable
class Explained(Policy, Protocol):
    """A policy whose costs have parts."""

    def parts(self, shape: Shape, states: States) -> Mapping[str, Floats]:
        """[B] by term, in thousandths of a device; rounded down to steps, their sum is the cost."""
        ...

    def step(self, shape: Shape) -> float:
        """Thousandths of a device in a step of the cost; 0 where no step is so many."""
        ...


@dataclass(frozen=True, slots=True)
class Score:
    """What a place costs: ``value`` in steps of the policy, least wins; ``parts`` in thousandths of a device, none
    where the policy's costs have none."""

    value: float
    parts: Mapping[str, float]


def values(policy: Policy, shape: Shape, *, fleet: FleetArrays, rows: Ints) -> Floats:
    """[rows]: what the shape costs there as things stand, surcharges included; it must fit."""
    found = costs_of(policy, shape, fleet=fleet, rows=rows).value
    return found + _surcharges(policy, shape, fleet=fleet, rows=rows)


def explained(policy: Policy, shape: Shape, *, fleet: FleetArrays, rows: Ints) -> Sequence[Score]:
    """For each of ``rows`` the same with its parts. A surcharge upon a scarce class of hosts is one of its own."""
    found: dict[int, Score] = {}
    for one, states, there in variants(shape, fleet=fleet, rows=rows):
        value = policy.costs(one, states).value
        surcharges = _surcharges(policy, shape, fleet=fleet, rows=rows[there])
        parts: dict[str, Floats] = {}
        if isinstance(policy, Explained):
            added = surcharges * policy.step(shape)
            parts = {**policy.parts(one, states), **({"surcharge": added} if added.any() else {})}
        value = value + surcharges
        able = usable(one, states).any(axis=1) if shape.device_bytes else np.ones(len(there), dtype=np.bool_)
        for at in np.flatnonzero(able).tolist():
            n = int(there[at])
            if n not in found or value[at] < found[n].value:
                found[n] = Score(float(value[at]), {name: round(float(part[at]), 3) for name, part in parts.items()})
    return [found.get(n, Score(float("inf"), {})) for n in range(len(rows))]


def _surcharges(policy: Policy, shape: Shape, *, fleet: FleetArrays, rows: Ints) -> Floats:
    added = np.zeros(len(rows))
    if isinstance(policy, Rationing) and policy.rationed(shape):
        more = policy.surcharge(shape, fleet.census.of(shape))
        by_kind = np.array([more.get(kind, 0.0) for kind in fleet.kinds.all])
        added = by_kind[fleet.kind[rows]] if len(by_kind) else added
    return added
