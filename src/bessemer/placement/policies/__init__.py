"""What a place costs: one protocol for our own rule and for the published ones that it is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from bessemer.placement.hostclass import HostClass
from bessemer.placement.shape import Shape
from bessemer.placement.states import States
from bessemer.placement.vectors import Ints

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Costs:
    """``value`` [B]: what putting one of a shape there costs, in steps of the policy; least wins, and what is equal is
    equal. ``milli`` [B]: for a share, the free thousandths of the device that it is best taken from. Hosts on which it
    does not fit may hold anything in both."""

    value: Floats
    milli: Ints


class Policy(Protocol):
    """Pure: equal shapes and states cost the same, until ``version`` is another."""

    name: str
    version: int

    def costs(self, shape: Shape, states: States) -> Costs:
        """What one of ``shape`` would cost on each of the hosts."""
        ...


@runtime_checkable
class Rationing(Policy, Protocol):
    """A policy that rations classes of hosts: what a place costs then depends on how many of the shape are where. That
    is the same for all hosts of a class, so it is added to kept costs at each decision, and never kept."""

    def rationed(self, shape: Shape) -> bool:
        """Whether anything is ever added for ``shape``. Mostly not, and then nobody need count."""
        ...

    def surcharge(self, shape: Shape, held: Mapping[HostClass | None, int]) -> Mapping[HostClass | None, float]:
        """What is added to ``value`` on hosts of each class now; 0 for classes that are not named. ``held``: how many
        of the shape hosts of each class (as in `States.kinds`) hold."""
        ...
