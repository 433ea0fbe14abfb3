"""`POLICIES`: every policy by its name. A policy is made of an outlook; of a generator, where it throws dice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from bessemer.placement.demand import Outlook
from bessemer.placement.policies import Policy
from bessemer.placement.policies.fgd import Fgd
from bessemer.placement.policies.potential import Potential
from bessemer.placement.policies.published import BestFit, DotProd, FirstFit, GpuClustering, GpuPacking, Random

Makes = Callable[[Outlook, np.random.Generator], Policy]

POLICIES: Mapping[str, Makes] = MappingProxyType(
    {
        "LPG": lambda outlook, _dice: Potential(outlook),
        "FGD": lambda outlook, _dice: Fgd(outlook.mix, version=outlook.version),
        "FGD-exact": lambda outlook, _dice: Fgd(outlook.mix, exact=True, version=outlook.version),
        "BestFit": lambda _outlook, _dice: BestFit(),
        "GpuPacking": lambda _outlook, _dice: GpuPacking(),
        "GpuClustering": lambda _outlook, _dice: GpuClustering(),
        "DotProd": lambda _outlook, _dice: DotProd(),
        "FirstFit": lambda _outlook, _dice: FirstFit(),
        "Random": lambda _outlook, dice: Random(dice),
    }
)
