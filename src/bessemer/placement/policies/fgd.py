"""FGD: a request goes where the expected fragment grows least.

Weng et al., "Beware of Fragmentation: Scheduling GPU-Sharing Workloads with Fragmentation Gradient Descent", USENIX ATC
2023. The artefact (hkust-adsl/kubernetes-scheduler-simulator, the plugin FGDScore) rounds what it finds to whole points
of a hundred, and it is these steps, with ties settled by a fixed order of hosts, that its published figures rest on:
without them (`exact`) it fills two points less.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bessemer.placement.demand import WHOLE, Mix
from bessemer.placement.policies import Costs, Floats
from bessemer.placement.policies.fragments import Fragments
from bessemer.placement.policies.ways import cheapest_way, in_batches, rises
from bessemer.placement.shape import Shape
from bessemer.placement.states import States


class Fgd:
    """Minus the artefact's score, ``floor(100 · sigmoid(−ΔF / 1000))``; with ``exact`` ΔF itself, in thousandths."""

    def __init__(self, mix: Mix, *, exact: bool = False, version: int = 0) -> None:
        self.name = "FGD-exact" if exact else "FGD"
        self.version = version
        self._exact = exact
        self._fragments = Fragments(mix.typical())
        self._no_waste = np.zeros(WHOLE + 1)

    def costs(self, shape: Shape, states: States) -> Costs:
        return in_batches(lambda part: self._costs(shape, part), states)

    def parts(self, shape: Shape, states: States) -> Mapping[str, Floats]:
        """[B]: by how much the expected fragment rises, in thousandths of a device."""
        found = rises(shape, states, fragments=self._fragments, waste=self._no_waste)
        return {"fragments": cheapest_way(shape, states, values=found.fragments).value}

    def step(self, shape: Shape) -> float:
        """No step of the artefact's score is so many thousandths: 0, unless it is ``exact``."""
        return 1.0 if self._exact else 0.0

    def _costs(self, shape: Shape, states: States) -> Costs:
        found = rises(shape, states, fragments=self._fragments, waste=self._no_waste)
        least = cheapest_way(shape, states, values=found.fragments)
        if self._exact:
            return least
        # Beyond 700 devices the exponential is no number any more, and the score 0 long before.
        value = -np.floor(100.0 / (1.0 + np.exp(np.minimum(least.value / 1000.0, 700.0))))
        return Costs(value, least.milli)
