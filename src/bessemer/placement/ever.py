"""Whether something could have a place at all, were nothing held of the hosts; and who could take it.

Hosts that are silent or take nothing new count, too: they may be back in a moment, with nothing changed of what asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from bessemer.core.asking import Gang, Request
from bessemer.placement.cheapest import drained
from bessemer.placement.filters import fitting
from bessemer.placement.fleet import FleetArrays
from bessemer.placement.gangs.rails import most
from bessemer.placement.sight import Sight
from bessemer.placement.vectors import Bools


def ever(fleet: FleetArrays, wants: Request | Gang) -> bool:
    """Whether it would fit, were all that is held gone; of a gang all members together."""
    sight, fits = _empty(fleet, wants)
    if isinstance(wants, Gang):
        return most(sight, wants, fits=fits) >= wants.count
    return bool(fits.any())


def takers(fleet: FleetArrays, wants: Request | Gang, *, most: int) -> Sequence[str]:
    """Hosts that would take it, or a member of it, were they empty and it bore their taints, which is told apart;
    ``most`` at most."""
    one = wants.member if isinstance(wants, Gang) else wants
    _, fits = _empty(fleet, replace(one, tolerations=("*",), bearable=None))
    return [fleet.names[row] for row in np.flatnonzero(fits)[:most].tolist()]


def _empty(fleet: FleetArrays, wants: Request | Gang) -> tuple[Sight, Bools]:
    """The empty fleet, all of it open, and [hosts] who would take one of it."""
    sight = drained(Sight.of(fleet, wants.member if isinstance(wants, Gang) else wants))
    sight = replace(sight, reachable=sight.everyone, schedulable=sight.everyone)
    return sight, fitting(sight)
