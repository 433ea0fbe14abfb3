"""`Outlook`: all that a policy may know of what will be asked for. A value, derived apart from decisions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from bessemer.placement.demand.mix import Floats, Mix
from bessemer.placement.demand.plan import Plan, class_plan
from bessemer.placement.demand.waste import WHOLE, hedged_waste
from bessemer.placement.hostclass import HostClass


@dataclass(frozen=True, eq=False)
class Outlook:
    """``waste`` [WHOLE + 1] see `hedged_waste`; ``plan`` where some class of hosts is scarce; ``turnover`` see
    `Turnover`. Whoever derives outlooks counts them: ``version`` is another whenever any of it is."""

    mix: Mix = field(default_factory=Mix)
    waste: Floats = field(default_factory=lambda: np.zeros(WHOLE + 1))
    plan: Plan | None = None
    turnover: float = 0.0
    version: int = 0

    @classmethod
    def derive(cls, mix: Mix, hosts: Mapping[HostClass, int], *, turnover: float = 0.0, version: int = 0) -> Outlook:
        """Solve what there is to solve: a tenth of a second, or a few. ``hosts``: how many there are of each class."""
        return cls(
            mix=mix,
            waste=hedged_waste(mix.shares),
            plan=class_plan(mix, hosts),
            turnover=turnover,
            version=version,
        )

    @property
    def solved(self) -> bool:
        """Whether there are prices for shares, where any are asked for."""
        return not self.mix.shares or bool(self.waste.any())

    def at(self, turnover: float, *, version: int) -> Outlook:
        """The same at another turnover: nothing is solved again."""
        return replace(self, turnover=turnover, version=version)
